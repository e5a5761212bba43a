"""CLIP (Radford et al., arXiv 2103.00020): image and text towers with a shared space, from open_clip or built from sizes."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from zoo.encoders.clip_towers import (
    TextTower,
    UnsupportedTowerError,
    VisionTower,
    fold_projections,
    text_tower,
    vision_tower,
)
from zoo.errors import ArgumentError, ZooError
from zoo.image_transform import ImageTransform, Interpolation
from zoo.precision import base_dtype
from zoo.pretrained import fingerprint_of, real_tensors, should_load_weights
from zoo.ranges import PixelSide, PositiveInt, Seed
from zoo.registry import nearest, register

_BIOMEDCLIP = "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"


class ClipEncoder(nn.Module):
    """A CLIP model with its tokenizer, image preprocessing and a layer-by-layer view of its towers.

    ``vision`` and ``text`` are the towers, layer by layer (:mod:`zoo.encoders.clip_towers`); ``transform`` makes the image tower's
    input of any image, ``image_size`` (height, width) in pixels is its size; ``embedding`` the width of the shared space.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module, tokenizer: Any, transform: ImageTransform, mean: Any, std: Any) -> None:
        """Wrap an open_clip model, with the transform and the channel statistics that it was trained with.

        Raises:
            UnsupportedTowerError: a tower is not a transformer.
        """
        super().__init__()
        fold_projections(model)
        self.model: Any = model
        self._tokenizer = tokenizer
        self.transform, self.image_size = transform, transform.size
        self.vision: VisionTower = vision_tower(model)
        self.text: TextTower = text_tower(model)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Images (batch, 1 or 3, height, width) in [0, 1] to the image tower's input, transformed if they are of another size."""
        normalised = (self.transform(images).expand(-1, 3, -1, -1) - self.mean) / self.std
        return normalised.to(base_dtype(self.model.parameters()))

    def stack(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Images (1 or 3, height, width) in [0, 1] of any sizes, transformed, as one batch that is not yet normalised."""
        return torch.stack([self.transform(image).expand(3, -1, -1) for image in images])

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, without start and end; known on every device, even "meta"."""
        with real_tensors():
            return int(self.text.is_token(self.text.trim(self._tokenizer([text]))).sum()) - 2

    def same_tokens(self, texts: list[str]) -> list[tuple[int, int]]:
        """Positions of texts that have the tokens of an earlier one, each with that one's: beyond its context, a tower reads none."""
        with real_tensors():
            rows = [tuple(row) for row in self._tokenizer(texts).tolist()]
        return [(rows.index(row), position) for position, row in enumerate(rows) if rows.index(row) < position]

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """Token ids (texts, positions) on the model's device, trimmed where no feature depends on the rest."""
        with real_tensors():
            input_ids = self.text.trim(self._tokenizer(texts))
        return input_ids.to(self.mean.device)

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Images (batch, 1 or 3, height, width) in [0, 1] to unit features (batch, embedding)."""
        tokens = self.vision.start(self.normalise(images))
        for index in range(self.vision.depth):
            tokens = self.vision.layer(index, tokens)
        return functional.normalize(self.vision.finish(tokens), dim=-1)

    def encode_ids(
        self, input_ids: torch.Tensor, inputs_embeds: torch.Tensor | None = None, *, normalize: bool = True
    ) -> torch.Tensor:
        """Token ids to features (texts, embedding), of unit length if ``normalize``.

        Args:
            input_ids: (texts, positions).
            inputs_embeds: (texts, positions, width), in place of the ids' embeddings; the ids still say where a text ends.
            normalize: whether features are of unit length.
        """
        inputs_embeds = self.text.embed(input_ids) if inputs_embeds is None else inputs_embeds
        tokens, attention_mask = self.text.start(inputs_embeds, input_ids)
        for index in range(self.text.depth):
            tokens = self.text.layer(index, tokens, attention_mask)
        features = self.text.finish(tokens, input_ids)
        return functional.normalize(features, dim=-1) if normalize else features

    def encode_text(self, texts: list[str], *, normalize: bool = True) -> torch.Tensor:
        """Texts to features (texts, embedding), of unit length if ``normalize``."""
        return self.encode_ids(self.tokenize(texts), normalize=normalize)

    def logits(self, image_features: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
        """Scaled cosine similarities (batch, texts) of unit features."""
        return self.scale * image_features @ text_features.mT

    @property
    def scale(self) -> torch.Tensor:
        """Factor on cosine similarities, the inverse temperature."""
        scale: torch.Tensor = self.model.logit_scale.exp()
        return scale

    @property
    def embedding(self) -> int:
        """Width of the shared space."""
        input_ids = torch.ones(1, 1, dtype=torch.long, device=self.mean.device)
        return int(self.text.finish(self.text.embed(input_ids), input_ids).shape[-1])

    def fingerprint(self) -> str:
        """sha256 over the names, shapes and float32 bytes of the CLIP model's weights, adapters left out."""
        state_dict = self.model.state_dict().items()
        return fingerprint_of((name, value) for name, value in state_dict if "lora_" not in name)


class OpenClipError(ZooError, RuntimeError):
    """open_clip does not know a model or its weights, or cannot load them."""


@register("vision_language_encoder", "open_clip")
class OpenClip(ClipEncoder):
    """Any open_clip model with transformer towers, by open_clip's names."""

    def __init__(self, model: str, pretrained: str | None = None, image_size: PixelSide | None = None) -> None:
        """Build the model and load its weights.

        Args:
            model: an architecture ("ViT-B-16"), "hf-hub:OWNER/NAME", or "local-dir:FOLDER" with an
                open_clip_config.json and open_clip_model.safetensors.
            pretrained: a tag of open_clip's list ("openai", "laion2b_s34b_b88k") or a file; None means random weights. Ignored
                with a prefix. Weights of a tag that were trained with QuickGELU, as OpenAI's, run with it, whether the
                architecture's name ends in "-quickgelu" or not; of a file, the name decides.
            image_size: side in pixels, if it differs from the model's; position embeddings are interpolated.

        Raises:
            UnsupportedTowerError: a tower is not a transformer; CoCa, and text towers of T5 and NLLB, are refused before their
                weights are loaded.
            OpenClipError: open_clip knows no such model or weights, or cannot load them.
        """
        import open_clip

        _refuse_unsupported(model)
        if not should_load_weights():
            clip = _architecture(model, image_size)
        else:
            clip = _pretrained_model(model, pretrained, image_size)
        super().__init__(clip, open_clip.get_tokenizer(model), *_preprocessing(clip))


def _refuse_unsupported(model: str) -> None:
    """Refuse families of open_clip whose text towers have no layer-by-layer view, by name; models on the hub only once loaded."""
    import open_clip

    sizes = {} if model.startswith("hf-hub:") else open_clip.get_model_config(model) or {}
    text = str(sizes.get("text_cfg", {}).get("hf_model_name", ""))
    families = {"multimodal_cfg" in sizes: "CoCa", "t5" in text: "T5", "nllb" in text: "NLLB"}
    if family := families.get(True):
        raise UnsupportedTowerError(
            f"'{model}' has the text tower of {family}, and only open_clip's own and those laid out as BERT can be adapted; choose a "
            "model such as ViT-B-16, or BiomedCLIP"
        )


def _pretrained_model(model: str, pretrained: str | None, image_size: int | None) -> Any:
    import open_clip

    options: dict[str, Any] = {"force_image_size": image_size}
    if not model.startswith(("hf-hub:", "local-dir:")):
        options |= {"pretrained": pretrained, "require_pretrained": pretrained is not None}
        weights = open_clip.get_pretrained_cfg(model.replace("/", "-"), pretrained or "")
        options["force_quick_gelu"] = bool(weights.get("quick_gelu"))
    try:
        return open_clip.create_model(model, **options)
    except RuntimeError as error:  # its message lists every known name, over a hundred
        reason = str(error).partition(" Available")[0].splitlines()[0]
        tags = open_clip.list_pretrained_tags_by_model(model)
        known = nearest(pretrained, tags) if pretrained and tags else nearest(model, open_clip.list_models())
        raise OpenClipError(
            f"open_clip cannot build '{model}' with pretrained '{pretrained}': {reason}{known}"
        ) from error


def _preprocessing(model: Any) -> tuple[ImageTransform, Any, Any]:
    """Transform, mean and standard deviation that an open_clip model was trained with, open_clip's defaults where it says none."""
    import open_clip
    from open_clip.transform import PreprocessCfg

    size = model.visual.image_size
    size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    stated = {**asdict(PreprocessCfg()), **open_clip.get_model_preprocess_cfg(model)}
    interpolation: Interpolation = (
        "bilinear" if stated["interpolation"] == "bilinear" else "bicubic"
    )  # of training, "random" too
    transform = ImageTransform(size, stated["resize_mode"], interpolation, stated["fill_color"] / 255)
    return transform, stated["mean"], stated["std"]


def _architecture(model: str, image_size: int | None) -> Any:
    """A model of open_clip's list at full size, without its weights.

    Raises:
        ArgumentError: the model is not in open_clip's list, so that its sizes are known only from its weights.
    """
    import open_clip

    sizes = open_clip.get_model_config(model)
    if sizes is None:
        raise ArgumentError(
            f"'{model}' cannot be planned: its sizes are known only from its weights; plan a model of open_clip's list"
        )
    if image_size is not None:
        sizes["vision_cfg"]["image_size"] = image_size
    custom_text = sizes.pop("custom_text", False)
    return open_clip.CustomTextCLIP(**sizes) if custom_text else open_clip.CLIP(**sizes)


@register("vision_language_encoder", "biomedclip")
class BiomedClip(ClipEncoder):
    """BiomedCLIP (Zhang et al., arXiv 2303.00915): timm's ViT-B/16 and PubMedBERT with 256 positions."""

    def __init__(self, source: str = _BIOMEDCLIP) -> None:
        """Load.

        Args:
            source: "hf-hub:OWNER/NAME", or "local-dir:FOLDER" with a copy of the repository. open_clip reads the sizes of
                BERT from the hub even then, unless BERT's config.json is in the folder.
        """
        import open_clip

        if not should_load_weights():
            clip = self._random_weights()
            tokenizer = _fixed_length_tokenizer(20)
        else:
            clip = open_clip.create_model(source, **_local_bert(source))
            tokenizer = open_clip.get_tokenizer(source)
        super().__init__(clip, tokenizer, *_preprocessing(clip))

    @staticmethod
    def _random_weights() -> Any:
        """The same classes and sizes without access to the hub, for planning."""
        from open_clip.hf_model import HFTextEncoder
        from open_clip.model import CustomTextCLIP
        from transformers import BertConfig

        vision = {"timm_model_name": "vit_base_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}
        model = CustomTextCLIP(512, vision, {"width": 64, "heads": 1, "layers": 1, "vocab_size": 8})
        model.text = HFTextEncoder(
            "", 512, config=BertConfig(vocab_size=30522), pooler_type="cls_last_hidden_state_pooler", proj_type="mlp"
        )
        model.text.transformer.pooler = None
        return model


def _local_bert(source: str) -> dict[str, Any]:
    """Options of open_clip that read BERT's config.json from a local folder instead of the hub; none where it has none."""
    import open_clip

    folder = Path(source.removeprefix("local-dir:"))
    if not source.startswith("local-dir:") or not (folder / "config.json").is_file():
        return {}
    text = open_clip.get_model_config(source)["text_cfg"]
    return {"text_cfg": {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}}


def _fixed_length_tokenizer(length: int) -> Any:
    """A tokenizer for planning without a vocabulary: every text has ``length`` ids."""
    return lambda texts: torch.arange(1, length + 1).expand(len(texts), -1)


@register("vision_language_encoder", "small_clip")
class SmallClip(ClipEncoder):
    """A CLIP of open_clip's classes and tokenizer, built from sizes, for training from scratch."""

    def __init__(
        self,
        image_size: PixelSide = 128,
        patch_size: PositiveInt = 16,
        width: PositiveInt = 192,
        layers: PositiveInt = 12,
        text_width: PositiveInt = 128,
        text_layers: PositiveInt = 12,
        embedding: PositiveInt = 128,
        context_length: PositiveInt = 77,
        weights_seed: Seed = 0,
    ) -> None:
        """Build with random weights from a separate seed, so that a frozen CLIP can be rebuilt.

        Args:
            image_size: side in pixels.
            patch_size: side of a patch in pixels.
            width: width of the image tower; heads are 64 wide.
            layers: layers of the image tower.
            text_width: width of the text tower; heads are 32 wide.
            text_layers: layers of the text tower.
            embedding: width of the shared space.
            context_length: maximum number of tokens of a text.
            weights_seed: of the random weights.

        Raises:
            ArgumentError: a width is not a multiple of its head width, or the patch does not divide the image.
        """
        import open_clip

        if width % 64 or text_width % 32 or image_size % patch_size:
            raise ArgumentError("width must be a multiple of 64, text_width of 32, and image_size of patch_size")
        text = {"context_length": context_length, "width": text_width, "heads": text_width // 32, "layers": text_layers}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(weights_seed)
            model = open_clip.CLIP(
                embed_dim=embedding,
                vision_cfg={"image_size": image_size, "patch_size": patch_size, "width": width, "layers": layers},
                text_cfg=text,
            )
        tokenizer = open_clip.SimpleTokenizer(context_length=context_length)
        super().__init__(model, tokenizer, ImageTransform((image_size, image_size)), [0.5] * 3, [0.25] * 3)
