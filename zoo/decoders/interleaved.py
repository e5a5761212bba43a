"""The interleaved decoder: Chameleon (arXiv 2405.09818) that reads and writes text and images in one sequence.

After Anole-RadCoT of MMRad-IVL-22K (arXiv 2602.12843). transformers' Chameleon underneath, with the tokenizer that also
decodes (:mod:`zoo.decoders.vq_image`) and without its mask over image tokens, which would forbid learning or writing them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import ChameleonConfig, ChameleonForConditionalGeneration

from zoo.constants import IGNORE_INDEX
from zoo.decoders.vq_image import VQImage, official_weights
from zoo.errors import WeightsError, ZooError
from zoo.pretrained import fingerprint_of
from zoo.registry import register


class VocabularyError(ZooError, ValueError):
    """A vocabulary that does not hold what an interleaved decoder needs, or a sequence that does not keep to it."""


@dataclass(frozen=True)
class ImageVocabulary:
    """Ids of a Chameleon vocabulary.

    Codebook index c is the id ``image_ids[c]``, and ``code_of`` (vocabulary) is c there and -1 elsewhere; an image is
    ``begin``, its codes, ``end``; ``separator`` stands between prompt and response, ``placeholder`` for an image not yet
    tokenized.
    """

    image_ids: torch.Tensor
    code_of: torch.Tensor
    begin: int
    end: int
    separator: int
    placeholder: int
    start: int
    stop: int
    pad: int
    _copies: dict[torch.device, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    """``code_of`` on each device where it was needed, so that no forward pass copies it again."""

    @classmethod
    def from_config(cls, config: ChameleonConfig) -> "ImageVocabulary":
        """Read the ids from the configuration's vocabulary map.

        Raises:
            VocabularyError: it has no image tokens, or lacks a mark.
        """
        from transformers.models.chameleon.modeling_chameleon import ChameleonImageVocabularyMapping

        names: dict[str, int] = dict(config.vocabulary_map or {})
        wanted = {"begin": "<racm3:break>", "end": "<eoss>", "separator": "<reserved08706>", "placeholder": "<image>"}
        missing = [name for name in wanted.values() if name not in names]
        if missing or not any(name.startswith("IMGIMG") for name in names):
            raise VocabularyError(f"the vocabulary map lacks {', '.join(missing) or 'image tokens (IMGIMG...Z)'}")
        with torch.device("cpu"):  # real numbers even while a model is planned
            ids = ChameleonImageVocabularyMapping(names).img2bpe_mapping_tensor.long()
            code_of = torch.full((config.vocab_size,), -1)
            code_of[ids] = torch.arange(len(ids))
        marks = {part: names[name] for part, name in wanted.items()}
        ends = {"start": names.get("<s>", 0), "stop": names.get("</s>", 2), "pad": names.get("<pad>", 1)}
        return cls(image_ids=ids, code_of=code_of, **marks, **ends)

    def is_image(self, ids: torch.Tensor) -> torch.Tensor:
        """True where an id (or label) is an image code's."""
        return self.codes(ids) >= 0

    def codes(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids of image tokens to codebook indices; -1 for others, ``IGNORE_INDEX`` labels included."""
        if ids.device not in self._copies:
            self._copies[ids.device] = self.code_of.to(ids.device)
        return self._copies[ids.device][ids.clamp(min=0)].masked_fill(ids < 0, -1)

    def index_in_image(self, ids: torch.Tensor) -> torch.Tensor:
        """Which code of its image each id (batch, positions) is, from 0; -1 where it is none."""
        order = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        begun = torch.where(ids == self.begin, order, -1).cummax(dim=1).values
        return torch.where(self.is_image(ids) & (begun >= 0), order - begun - 1, -1)

    def check(self, ids: torch.Tensor, codes_an_image: int) -> None:
        """Check one sequence (positions): every image begins, is whole, and ends.

        Raises:
            VocabularyError: naming the position where it does not.
        """
        inside, count = False, 0
        for position, (token, is_code) in enumerate(zip(ids.tolist(), self.is_image(ids).tolist(), strict=True)):
            if token == self.begin and inside:
                raise VocabularyError(f"position {position}: an image begins inside an image")
            if (token == self.end or is_code) and not inside:
                raise VocabularyError(f"position {position}: image tokens outside an image")
            if inside and not is_code and (token != self.end or count != codes_an_image):
                raise VocabularyError(
                    f"position {position}: an image is cut short after {count} of {codes_an_image} codes"
                )
            if is_code and count == codes_an_image:
                raise VocabularyError(f"position {position}: an image has more than {codes_an_image} codes")
            count = count + 1 if is_code else 0
            inside = (inside or token == self.begin) and token != self.end
        if inside:
            raise VocabularyError(f"the sequence ends inside an image, after {count} of {codes_an_image} codes")


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

    text: Any
    """A transformers tokenizer; set by the models of :mod:`zoo.decoders.interleaved_models`."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Build with random weights from the fields of a Chameleon configuration."""
        super().__init__()
        self._build(ChameleonConfig(**config))

    def _build(self, config: ChameleonConfig, language: Any = None) -> None:
        """Wire a language model, one with random weights if None."""
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
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made._load(Path(folder))
        return made.eval()

    def _load(self, folder: Path) -> None:
        self._build(ChameleonConfig.from_pretrained(folder))
        missing, _ = self.language.load_state_dict(official_weights(folder), strict=False)
        if missing:
            raise WeightsError(f"{folder} lacks {len(missing)} weights, as {sorted(missing)[0]}")

    def fingerprint(self) -> str:
        """sha256 over the names, shapes and float32 bytes of all weights that are not trained."""
        return fingerprint_of((name, value) for name, value in self.named_parameters() if not value.requires_grad)

    @property
    def tokenizer(self) -> VQImage:
        """The image tokenizer and decoder."""
        return self.language.model.vqmodel

    @property
    def device(self) -> torch.device:
        """Where the language model is."""
        return self.language.get_input_embeddings().weight.device

    @property
    def codes_an_image(self) -> int:
        """Image tokens between the begin and end marks."""
        return self.tokenizer.grid**2

    def image_ids(self, images: torch.Tensor) -> torch.Tensor:
        """Images (batch, 3, resolution, resolution) in [-1, 1] to ids (batch, codes_an_image)."""
        codes = self.tokenizer.tokens(images.to(self.tokenizer.codebook.dtype))
        return self.vocabulary.image_ids.to(codes.device)[codes]

    def hidden(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None = None,
        *,
        index_in_image: torch.Tensor | None = None,
        **cache: Any,
    ) -> Any:
        """Transformers' output for ids (batch, positions); ``last_hidden_state`` is after the final norm.

        ``index_in_image`` (batch, positions) is :meth:`ImageVocabulary.index_in_image`, which must be given with a cache, as
        ``ids`` need not hold the mark that the image began with.
        """
        if self.places is None:
            return self.language.model(input_ids=ids, attention_mask=mask, **cache)
        index = self.vocabulary.index_in_image(ids) if index_in_image is None else index_in_image
        place = self.places(index.clamp(0, self.codes_an_image - 1)) * (index >= 0)[..., None]
        embedded = self.language.model.get_input_embeddings()(ids)
        return self.language.model(inputs_embeds=embedded + place.to(embedded.dtype), attention_mask=mask, **cache)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (batch, positions, vocabulary), image tokens not masked."""
        return self.language.lm_head(self.hidden(ids, mask).last_hidden_state)

    def losses(self, ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cross-entropy over text and image tokens, and the auxiliary codebook loss, in float32 whatever the model's precision.

        ``auxiliary`` is the mean squared error between the projected last hidden states at the response's image tokens
        (position of the token itself) and the frozen codebook embedding of those tokens; 0 where there are none. Padding needs
        no mask: it comes after all that is learned, and attention looks back.

        Args:
            ids: (batch, positions), right-padded.
            labels: the same with ``IGNORE_INDEX`` up to and with the separator, and at padding.
        """
        hidden = self.hidden(ids).last_hidden_state
        logits = self.language.lm_head(hidden[:, :-1])
        entropy = functional.cross_entropy(
            logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX
        )
        codes = self.vocabulary.codes(labels)
        wanted = functional.embedding(codes.clamp(min=0), self.tokenizer.codebook.detach()).float()
        projected = self.auxiliary(hidden.to(self.auxiliary.weight.dtype)).float()
        difference = (projected - wanted).square().mean(dim=-1).masked_fill(codes < 0, 0.0)
        return {"cross_entropy": entropy, "auxiliary": difference.sum() / (codes >= 0).sum().clamp(min=1)}
