"""The rows that guidance mixes, in one key-value cache: what has gone through the model, and what each row attends to.

A sample has one row per condition. All its rows take the same tokens; what a row may not attend to is masked in it, and its
position ids count only what it attends to. Rows are aligned on the right, so that the next token of every row has the same
place in the cache. A row is masked on the left where it is shorter: its prompt is shorter, or other samples were provided
with an image.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers.cache_utils import Cache, DynamicLayer

from zoo.decoders.interleaved import ImageVocabulary, InterleavedDecoder

_GROWTH = 256
"""Positions by which a full cache grows."""
_KEEP_IMAGES = ("full", "image")
"""Rows that still attend to an image when the next one begins."""


class GrowingLayer(DynamicLayer):
    """A layer's cache with spare capacity, so that a step copies one position and not all of them."""

    keys: Any  # None before the first update
    values: Any
    _buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values (rows, heads, positions, width); returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            larger = tuple(
                new.new_empty(*new.shape[:2], end + _GROWTH, new.shape[-1]) for new in (key_states, value_states)
            )
            for buffer, states in zip(larger, (self.keys, self.values), strict=True):
                if states is not None and start:
                    buffer[:, :, :start] = states
            self._buffers = (larger[0], larger[1])
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def select(self, rows: torch.Tensor, length: int) -> Any:
        """A new layer with a copy of some rows, of their last ``length`` positions."""
        layer: Any = type(self)()
        layer.lazy_initialization(self.keys, self.values)
        layer.keys, layer.values = _aligned(self.keys[rows], length), _aligned(self.values[rows], length)
        return layer

    def replace(self, rows: torch.Tensor, layer: Any, length: int) -> None:
        """Replace rows by those of a layer that has taken more positions, and align all rows on the right at ``length``."""
        self.keys, self.values = _aligned(self.keys, length), _aligned(self.values, length)
        self.keys[rows], self.values[rows] = _aligned(layer.keys, length), _aligned(layer.values, length)
        self._buffers = None


def _aligned(states: torch.Tensor, length: int) -> torch.Tensor:
    """States (..., positions, width) padded with zeros or cut on the left to ``length`` positions."""
    return functional.pad(states, (0, 0, length - states.shape[-2], 0))


class GuidanceRows:
    """The rows of a batch of samples as they go through the model.

    The name of a row says what it attends to: "full" everything; "image" all images and no text; "unconditional" the current
    image; any other its own prompt and the current image.
    """

    def __init__(
        self,
        decoder: InterleavedDecoder,
        names: tuple[str, ...],
        prompts: Sequence[list[int]],
        row_prompts: dict[str, torch.Tensor | None],
    ) -> None:
        """Lay out the prompts; nothing goes through the model before :meth:`prefill`.

        Args:
            decoder: the model.
            names: of a sample's rows.
            prompts: token ids of each sample.
            row_prompts: token ids of the prompts of rows with other names.
        """
        self._decoder, self._names = decoder, names
        vocabulary, self._device = decoder.vocabulary, decoder.device
        samples = [_visible_prompts(prompt, names, vocabulary, row_prompts) for prompt in prompts]
        self._lengths = [max(map(len, rows)) for rows in samples]
        length = max(self._lengths)
        padded = [[vocabulary.pad_token_id] * (length - len(row)) + row for rows in samples for row in rows]
        starts = torch.tensor([length - len(row) for rows in samples for row in rows], device=self._device)
        self._prompt_ids = torch.tensor(padded, device=self._device)
        self._attention_mask = torch.arange(length, device=self._device) >= starts[:, None]
        self._index_in_image = vocabulary.index_in_image(self._prompt_ids)
        self._cache = Cache(layer_class_to_replicate=GrowingLayer)
        self._build_masks(len(prompts))

    def _build_masks(self, samples: int) -> None:
        """Which tokens each row attends to, and what it still attends to of the prompt when another image begins."""
        vocabulary = self._decoder.vocabulary
        token_ids = torch.arange(len(vocabulary.code_of), device=self._device)
        self._is_code = vocabulary.is_image(token_ids)
        in_image = self._is_code | (token_ids == vocabulary.boi_token_id)
        visible = {"full": torch.ones_like(in_image), "image": in_image | (token_ids == vocabulary.eoi_token_id)}
        self._is_visible = torch.stack([visible.get(name, in_image) for name in self._names], dim=1)
        forgets = [name not in _KEEP_IMAGES for name in self._names]
        self._forgets = torch.tensor(forgets, device=self._device).repeat(samples)[:, None]
        self._next_image_mask = self._attention_mask.clone()
        # A begin-of-image token at the end of the prompt opens the first image, which the next one hides.
        self._next_image_mask[:, -1] &= self._prompt_ids[:, -1] != vocabulary.boi_token_id

    def prefill(self) -> torch.Tensor:
        """Logits (samples, rows, vocabulary) after the prompts."""
        return self._logits(self._prompt_ids)

    def append(self, tokens: Sequence[int]) -> torch.Tensor:
        """Append one token per sample; logits (samples, rows, vocabulary) after it."""
        new = torch.tensor(tokens, device=self._device)
        input_ids = new.repeat_interleave(len(self._names))[:, None]
        begins_image = input_ids == self._decoder.vocabulary.boi_token_id
        mask = torch.where(begins_image & self._forgets, self._next_image_mask, self._attention_mask)
        self._attention_mask = torch.cat([mask, self._is_visible[new].view(-1, 1)], dim=1)
        self._next_image_mask = functional.pad(self._next_image_mask, (0, 1))
        self._lengths = [length + 1 for length in self._lengths]
        self._index_in_image = torch.where(self._is_code[input_ids], self._index_in_image[:, -1:] + 1, -1)
        return self._logits(input_ids)

    def insert(self, images: dict[int, list[int]]) -> None:
        """Append a begin-of-image token and all codes of an image at once, for some samples by index.

        The other samples stay as they are, and so do rows that will have forgotten the image by the time their logits are
        needed.
        """
        offsets = [offset for offset, name in enumerate(self._names) if name in _KEEP_IMAGES]
        rows = self._rows(list(images), offsets)
        input_ids = torch.tensor(list(images.values()), device=self._device).repeat_interleave(len(offsets), dim=0)
        length, count = max(self._lengths[sample] for sample in images), input_ids.shape[1]
        mask = functional.pad(_align_mask(self._attention_mask[rows], length), (0, count), value=True)
        selected = Cache(layers=[layer.select(rows, length) for layer in self._layers])
        index_in_image = torch.arange(-1, count - 1, device=self._device).expand_as(input_ids)
        self._forward(input_ids, mask, index_in_image, selected)
        for sample in images:
            self._lengths[sample] += count
        length = max(self._lengths)
        for layer, extended in zip(self._layers, selected.layers, strict=True):
            layer.replace(rows, extended, length)
        self._align_masks(length)
        self._attention_mask[rows] = _align_mask(mask, length)

    def keep(self, samples: Sequence[int]) -> None:
        """Drop all samples but these, by index."""
        rows = self._rows(samples, range(len(self._names)))
        self._lengths = [self._lengths[sample] for sample in samples]
        length = max(self._lengths)
        self._cache = Cache(layers=[layer.select(rows, length) for layer in self._layers])
        self._attention_mask, self._next_image_mask = self._attention_mask[rows], self._next_image_mask[rows]
        self._align_masks(length)
        self._index_in_image, self._forgets = self._index_in_image[rows], self._forgets[rows]

    @property
    def _layers(self) -> list[Any]:
        return self._cache.layers

    def _rows(self, samples: Sequence[int], offsets: Sequence[int]) -> torch.Tensor:
        """Indices of some rows of some samples."""
        rows = [sample * len(self._names) + offset for sample in samples for offset in offsets]
        return torch.tensor(rows, device=self._device)

    def _align_masks(self, length: int) -> None:
        self._attention_mask = _align_mask(self._attention_mask, length)
        self._next_image_mask = _align_mask(self._next_image_mask, length)

    def _logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden_states = self._forward(input_ids, self._attention_mask, self._index_in_image, self._cache)
        logits = self._decoder.language.lm_head(hidden_states[:, -1]).float()
        return logits.view(len(self._lengths), len(self._names), -1)

    def _forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, index_in_image: torch.Tensor, cache: Cache
    ) -> torch.Tensor:
        position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        outputs = self._decoder.forward_backbone(
            input_ids,
            attention_mask,
            index_in_image=index_in_image,
            cache=cache,
            position_ids=position_ids,
            use_cache=True,
        )
        return outputs.last_hidden_state


def _align_mask(mask: torch.Tensor, length: int) -> torch.Tensor:
    """A mask (rows, positions) padded or cut on the left to ``length`` positions, as the cache is."""
    return functional.pad(mask, (length - mask.shape[1], 0))


def _visible_prompts(
    prompt: list[int], names: tuple[str, ...], vocabulary: ImageVocabulary, row_prompts: dict[str, torch.Tensor | None]
) -> list[list[int]]:
    """What each row attends to of a prompt; all attend to a begin-of-image token at its end."""
    last = [token for token in prompt[-1:] if token == vocabulary.boi_token_id]
    is_code = vocabulary.is_image(torch.tensor(prompt, device="cpu")).tolist()
    delimiters = (vocabulary.boi_token_id, vocabulary.eoi_token_id, vocabulary.bos_token_id)
    images = [token for token, code in zip(prompt, is_code, strict=True) if code or token in delimiters]
    visible = {"full": prompt, "image": images, "unconditional": last}
    visible |= {name: [*ids.tolist(), *last] for name, ids in row_prompts.items() if ids is not None}
    return [visible[name] for name in names]
