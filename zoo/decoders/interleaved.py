"""The interleaved decoder: Chameleon (arXiv 2405.09818), which reads and generates text and images in one sequence.

After Anole-RadCoT of MMRad-IVL-22K (arXiv 2602.12843). Built on transformers' Chameleon, with an image tokenizer that also
decodes (:mod:`zoo.decoders.vq_image`) and without its mask over image logits, which rules out training on images and
generating them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import ChameleonConfig, ChameleonForConditionalGeneration

from zoo.constants import IGNORE_INDEX
from zoo.decoders.image_transforms import ImageTransformName, PixelScale, center_crop, squash
from zoo.decoders.vq_image import VQImage, read_safetensors_folder
from zoo.errors import WeightsError, ZooError
from zoo.pretrained import fingerprint_of
from zoo.registry import register


class VocabularyError(ZooError, ValueError):
    """A vocabulary that lacks a token the decoder needs, or a sequence in which an image is malformed."""


@dataclass(frozen=True)
class ImageVocabulary:
    """Token ids of a Chameleon vocabulary.

    Codebook index c has the token id ``image_ids[c]``; ``code_of`` (vocabulary) maps that id back to c, and every other id to
    -1. An image is ``boi_token_id``, its codes, ``eoi_token_id``. ``sep_token_id`` separates prompt and response,
    ``image_token_id`` is the placeholder of an image that is not tokenized yet.
    """

    image_ids: torch.Tensor
    code_of: torch.Tensor
    boi_token_id: int
    eoi_token_id: int
    sep_token_id: int
    image_token_id: int
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    _copies: dict[torch.device, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    """``code_of`` on each device it was used on, so that it is copied once and not in every forward pass."""

    @classmethod
    def from_config(cls, config: ChameleonConfig) -> "ImageVocabulary":
        """Read the token ids from the configuration's vocabulary map.

        Raises:
            VocabularyError: it has no image tokens, or lacks a special token.
        """
        from transformers.models.chameleon.modeling_chameleon import ChameleonImageVocabularyMapping

        names: dict[str, int] = dict(config.vocabulary_map or {})
        required = {
            "boi_token_id": "<racm3:break>",
            "eoi_token_id": "<eoss>",
            "sep_token_id": "<reserved08706>",
            "image_token_id": "<image>",
        }
        missing = [token for token in required.values() if token not in names]
        if missing or not any(name.startswith("IMGIMG") for name in names):
            raise VocabularyError(f"the vocabulary map lacks {', '.join(missing) or 'image tokens (IMGIMG...Z)'}")
        with torch.device("cpu"):  # real values even when a model is planned on fake tensors
            image_ids = ChameleonImageVocabularyMapping(names).img2bpe_mapping_tensor.long()
            code_of = torch.full((config.vocab_size,), -1)
            code_of[image_ids] = torch.arange(len(image_ids))
        defaults = {"bos_token_id": ("<s>", 0), "eos_token_id": ("</s>", 2), "pad_token_id": ("<pad>", 1)}
        token_ids = {field: names[token] for field, token in required.items()}
        token_ids |= {field: names.get(token, default) for field, (token, default) in defaults.items()}
        return cls(image_ids=image_ids, code_of=code_of, **token_ids)

    def is_image(self, input_ids: torch.Tensor) -> torch.Tensor:
        """True where a token id (or label) is an image code."""
        return self.codes(input_ids) >= 0

    def codes(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Codebook indices of token ids; -1 for ids that are no image code, and for labels of ``IGNORE_INDEX``."""
        device = input_ids.device
        if device not in self._copies:
            self._copies[device] = self.code_of.to(device)
        return self._copies[device][input_ids.clamp(min=0)].masked_fill(input_ids < 0, -1)

    def index_in_image(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Index of each code in its image, from 0, for ids (batch, positions); -1 outside images."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        boi_positions = torch.where(input_ids == self.boi_token_id, positions, -1).cummax(dim=1).values
        return torch.where(self.is_image(input_ids) & (boi_positions >= 0), positions - boi_positions - 1, -1)

    def check(self, input_ids: torch.Tensor, tokens_per_image: int) -> None:
        """Check that every image of a sequence (positions) is complete and delimited.

        Raises:
            VocabularyError: with the position of the first image that is not.
        """
        inside, count = False, 0
        is_image = self.is_image(input_ids).tolist()
        for position, (token, is_code) in enumerate(zip(input_ids.tolist(), is_image, strict=True)):
            if token == self.boi_token_id and inside:
                raise VocabularyError(f"position {position}: an image begins inside an image")
            if (token == self.eoi_token_id or is_code) and not inside:
                raise VocabularyError(f"position {position}: image tokens outside an image")
            if inside and not is_code and (token != self.eoi_token_id or count != tokens_per_image):
                raise VocabularyError(
                    f"position {position}: an image is cut short after {count} of {tokens_per_image} codes"
                )
            if is_code and count == tokens_per_image:
                raise VocabularyError(f"position {position}: an image has more than {tokens_per_image} codes")
            count = count + 1 if is_code else 0
            inside = (inside or token == self.boi_token_id) and token != self.eoi_token_id
        if inside:
            raise VocabularyError(f"the sequence ends inside an image, after {count} of {tokens_per_image} codes")


class InterleavedChameleon(ChameleonForConditionalGeneration):
    """transformers' Chameleon with an image tokenizer that also decodes."""

    def __init__(self, config: ChameleonConfig) -> None:
        """Build with random weights."""
        super().__init__(config)
        vq_config: Any = config.vq_config
        self.model.vqmodel = VQImage.from_config(vq_config)


@register("decoder", "interleaved_decoder")
class InterleavedDecoder(nn.Module):
    """Logits over text and image tokens, and the losses of Anole-RadCoT.

    ``language`` has the official state-dict names, image tokenizer and decoder included (``model.vqmodel``).
    """

    tokenizer: Any
    """The text tokenizer, of transformers; set by the models of :mod:`zoo.decoders.interleaved_models`."""
    image_transform: ImageTransformName = "squash"
    """How :meth:`prepare_image` makes an image square."""
    pixel_scale = PixelScale()
    """Of ``center_crop``."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Build with random weights.

        Args:
            config: fields of transformers' Chameleon configuration.
        """
        super().__init__()
        self._build(ChameleonConfig(**config))

    def _build(self, config: ChameleonConfig, language: Any = None) -> None:
        """Wire a language model; one with random weights if None."""
        self.vocabulary = ImageVocabulary.from_config(config)
        self.language: Any = InterleavedChameleon(config) if language is None else language
        vq_config: Any = config.vq_config
        self.auxiliary = nn.Linear(config.hidden_size, vq_config.embed_dim)
        self.places: nn.Embedding | None = None  # see SmallInterleaved; Anole and Chameleon have none

    @classmethod
    def from_official(cls, folder: str | Path) -> "InterleavedDecoder":
        """Load an Anole or Chameleon checkpoint folder (config.json and safetensors).

        Raises:
            MissingWeightsError: the folder has no safetensors files.
            WeightsError: a weight is missing.
        """
        decoder = cls.__new__(cls)
        nn.Module.__init__(decoder)
        decoder._load(Path(folder))
        return decoder.eval()

    def _load(self, folder: Path) -> None:
        self._build(ChameleonConfig.from_pretrained(folder))
        missing, _ = self.language.load_state_dict(read_safetensors_folder(folder), strict=False)
        if missing:
            raise WeightsError(f"{folder} lacks {len(missing)} weights, e.g. {sorted(missing)[0]}")

    def fingerprint(self) -> str:
        """sha256 over the names, shapes and float32 bytes of all weights that are not trained."""
        return fingerprint_of((name, value) for name, value in self.named_parameters() if not value.requires_grad)

    @property
    def image_tokenizer(self) -> VQImage:
        """The image tokenizer and decoder."""
        return self.language.model.vqmodel

    @property
    def device(self) -> torch.device:
        """Device of the language model."""
        return self.language.get_input_embeddings().weight.device

    @property
    def tokens_per_image(self) -> int:
        """Image tokens between the begin-of-image and end-of-image tokens."""
        return self.image_tokenizer.grid**2

    def prepare_image(self, image: torch.Tensor) -> torch.Tensor:
        """Pixel values (3, resolution, resolution), on the decoder's device, of an image (1 or 3, height, width) in [0, 1]."""
        side, device = self.image_tokenizer.config.resolution, self.image_tokenizer.codebook.device
        if self.image_transform == "squash":
            return squash(image.to(device), side)
        return center_crop(image, side, self.pixel_scale).to(device)

    def image_fingerprint(self) -> str:
        """Hash of the image tokenizer, with the transform where it is not the plain one."""
        fingerprint = self.image_tokenizer.fingerprint()
        return (
            fingerprint
            if self.image_transform == "squash"
            else f"{fingerprint}{self.image_transform}{self.pixel_scale}"
        )

    def tokenize_images(self, images: torch.Tensor) -> torch.Tensor:
        """Token ids (batch, tokens_per_image) of images (batch, 3, resolution, resolution) in [-1, 1]."""
        codes = self.image_tokenizer.tokenize(images.to(self.image_tokenizer.codebook.dtype))
        return self.vocabulary.image_ids.to(codes.device)[codes]

    def forward_backbone(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        index_in_image: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Output of transformers' model for ids (batch, positions); ``last_hidden_state`` is taken after the final norm.

        ``index_in_image`` (batch, positions) is that of :meth:`ImageVocabulary.index_in_image`. With a cache it is required:
        ``input_ids`` need not contain the begin-of-image token then.
        """
        model = self.language.model
        if self.places is None:
            return model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        index = self.vocabulary.index_in_image(input_ids) if index_in_image is None else index_in_image
        places = self.places(index.clamp(0, self.tokens_per_image - 1)) * (index >= 0)[..., None]
        embeds = model.get_input_embeddings()(input_ids)
        return model(inputs_embeds=embeds + places.to(embeds.dtype), attention_mask=attention_mask, **kwargs)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (batch, positions, vocabulary), those of image tokens included."""
        return self.language.lm_head(self.forward_backbone(input_ids, attention_mask).last_hidden_state)

    def losses(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cross-entropy over text and image tokens, and the auxiliary codebook loss, in float32 whatever the model's precision.

        ``auxiliary`` is the mean squared error between the projected last hidden states at the image tokens of the response
        (at the position of the token itself) and the frozen codebook embeddings of these tokens; 0 where there are none.
        Padding needs no attention mask: it is on the right, and attention is causal.

        Args:
            input_ids: (batch, positions), padded on the right.
            labels: the same, with ``IGNORE_INDEX`` up to and including the separator, and at padding.
        """
        hidden_states = self.forward_backbone(input_ids).last_hidden_state
        logits = self.language.lm_head(hidden_states[:, :-1]).flatten(0, 1).float()
        cross_entropy = functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX)
        codes = self.vocabulary.codes(labels)
        targets = functional.embedding(codes.clamp(min=0), self.image_tokenizer.codebook.detach()).float()
        projected = self.auxiliary(hidden_states.to(self.auxiliary.weight.dtype)).float()
        errors = (projected - targets).square().mean(dim=-1).masked_fill(codes < 0, 0.0)
        return {"cross_entropy": cross_entropy, "auxiliary": errors.sum() / (codes >= 0).sum().clamp(min=1)}
