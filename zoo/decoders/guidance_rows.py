"""The rows that guidance mixes, in one key-value cache: what has gone through the model, and what each row sees of it.

A sample has one row for each condition. All its rows take the same tokens; what a row must not see is masked in it, and its
position ids count only what it sees. Rows are aligned on the right, so that the next token of every row has the same place in
the cache; a row that is shorter, because its prompt is or because others took an image at once, is masked on the left.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers.cache_utils import Cache, DynamicLayer

from zoo.decoders.interleaved import ImageVocabulary, InterleavedDecoder

_AHEAD = 256
"""Positions of room that a full cache is grown by."""
_REMEMBERING = ("full", "image")
"""Rows that still see an image when another begins."""


class GrowingLayer(DynamicLayer):
    """A layer's cache with room ahead, so that a step copies one position and not all of them."""

    keys: Any  # None before the first update
    values: Any
    _room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values (rows, heads, positions, width); returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._room is None or end > self._room[0].shape[-2]:
            larger = tuple(
                new.new_empty(*new.shape[:2], end + _AHEAD, new.shape[-1]) for new in (key_states, value_states)
            )
            for room, kept in zip(larger, (self.keys, self.values), strict=True):
                if kept is not None and start:
                    room[:, :, :start] = kept
            self._room = (larger[0], larger[1])
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, start:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values

    def select(self, rows: torch.Tensor, length: int) -> Any:
        """A copy of some rows in a layer of its own, with the last ``length`` positions."""
        layer: Any = type(self)()
        layer.lazy_initialization(self.keys, self.values)
        layer.keys, layer.values = _aligned(self.keys[rows], length), _aligned(self.values[rows], length)
        return layer

    def replace(self, rows: torch.Tensor, layer: Any, length: int) -> None:
        """Put rows that have taken more positions in place of those selected, and align all on the right at ``length``."""
        self.keys, self.values = _aligned(self.keys, length), _aligned(self.values, length)
        self.keys[rows], self.values[rows] = _aligned(layer.keys, length), _aligned(layer.values, length)
        self._room = None


def _aligned(states: torch.Tensor, length: int) -> torch.Tensor:
    """States (..., positions, width) padded with zeros or cut on the left to ``length`` positions."""
    return functional.pad(states, (0, 0, length - states.shape[-2], 0))


class GuidanceRows:
    """The rows of a batch of samples as they go through the model.

    By name, what a row sees: "full" all; "image" all images and no text; "unconditional" the image at hand; any other its own
    prompt and the image at hand.
    """

    def __init__(
        self,
        decoder: InterleavedDecoder,
        names: tuple[str, ...],
        prompts: Sequence[list[int]],
        others: dict[str, torch.Tensor | None],
    ) -> None:
        """Lay out the prompts; nothing goes through the model before :meth:`prefill`.

        Args:
            decoder: the model.
            names: of a sample's rows.
            prompts: ids of each sample.
            others: ids of the prompts that rows of other names have instead.
        """
        self._decoder, self._names = decoder, names
        vocabulary, self._device = decoder.vocabulary, decoder.device
        lines = [_visible_prompts(prompt, names, vocabulary, others) for prompt in prompts]
        self._lengths = [max(map(len, sample)) for sample in lines]
        length = max(self._lengths)
        padded = [[vocabulary.pad] * (length - len(line)) + line for sample in lines for line in sample]
        starts = torch.tensor([length - len(line) for sample in lines for line in sample], device=self._device)
        self._prompt_ids = torch.tensor(padded, device=self._device)
        self._mask = torch.arange(length, device=self._device) >= starts[:, None]
        self._index = vocabulary.index_in_image(self._prompt_ids)
        self._cache = Cache(layer_class_to_replicate=GrowingLayer)
        self._set_rules(len(prompts))

    def _set_rules(self, samples: int) -> None:
        """What is seen: of a token by each name's row, and still of the prompt when another image begins."""
        vocabulary = self._decoder.vocabulary
        ids = torch.arange(len(vocabulary.code_of), device=self._device)
        self._is_code = vocabulary.is_image(ids)
        in_image = self._is_code | (ids == vocabulary.begin)
        seen = {"full": torch.ones_like(in_image), "image": in_image | (ids == vocabulary.end)}
        self._sees = torch.stack([seen.get(name, in_image) for name in self._names], dim=1)
        forgets = [name not in _REMEMBERING for name in self._names]
        self._forgets = torch.tensor(forgets, device=self._device).repeat(samples)[:, None]
        self._kept = self._mask.clone()
        self._kept[:, -1] &= self._prompt_ids[:, -1] != vocabulary.begin  # it opens the first image, which is forgotten

    def prefill(self) -> torch.Tensor:
        """Logits (samples, rows, vocabulary) after the prompts."""
        return self._logits(self._prompt_ids)

    def append(self, tokens: Sequence[int]) -> torch.Tensor:
        """Take one token of each sample; logits (samples, rows, vocabulary) after it."""
        new = torch.tensor(tokens, device=self._device)
        ids = new.repeat_interleave(len(self._names))[:, None]
        self._mask = self._as_begun(ids == self._decoder.vocabulary.begin)
        self._mask = torch.cat([self._mask, self._sees[new].view(-1, 1)], dim=1)
        self._kept = functional.pad(self._kept, (0, 1))
        self._lengths = [length + 1 for length in self._lengths]
        self._index = torch.where(self._is_code[ids], self._index[:, -1:] + 1, -1)
        return self._logits(ids)

    def insert(self, images: dict[int, list[int]]) -> None:
        """Take a begin mark and all codes of an image at once, for some samples by index; the others stay where they are.

        So do rows that will have forgotten the image before their logits are asked for again.
        """
        remembering = [offset for offset, name in enumerate(self._names) if name in _REMEMBERING]
        rows = self._rows(list(images), remembering)
        ids = torch.tensor(list(images.values()), device=self._device).repeat_interleave(len(remembering), dim=0)
        length, count = max(self._lengths[sample] for sample in images), ids.shape[1]
        mask = functional.pad(self._at(self._mask[rows], length), (0, count), value=True)
        part = Cache(layers=[layer.select(rows, length) for layer in self._layers])
        self._run(ids, mask, torch.arange(-1, count - 1, device=self._device).expand_as(ids), part)
        for sample in images:
            self._lengths[sample] += count
        length = max(self._lengths)
        for layer, taken in zip(self._layers, part.layers, strict=True):
            layer.replace(rows, taken, length)
        self._mask, self._kept = self._at(self._mask, length), self._at(self._kept, length)
        self._mask[rows] = self._at(mask, length)

    def keep(self, samples: Sequence[int]) -> None:
        """Go on with these samples alone, by index."""
        rows = self._rows(samples, range(len(self._names)))
        self._lengths = [self._lengths[sample] for sample in samples]
        length = max(self._lengths)
        self._cache = Cache(layers=[layer.select(rows, length) for layer in self._layers])
        self._mask, self._kept = self._at(self._mask[rows], length), self._at(self._kept[rows], length)
        self._index, self._forgets = self._index[rows], self._forgets[rows]

    @property
    def _layers(self) -> list[Any]:
        return self._cache.layers

    def _rows(self, samples: Sequence[int], offsets: Sequence[int]) -> torch.Tensor:
        """Some rows of some samples, by index."""
        rows = [sample * len(self._names) + offset for sample in samples for offset in offsets]
        return torch.tensor(rows, device=self._device)

    @staticmethod
    def _at(mask: torch.Tensor, length: int) -> torch.Tensor:
        """A mask aligned as the cache is."""
        return functional.pad(mask, (length - mask.shape[1], 0))

    def _as_begun(self, begun: torch.Tensor) -> torch.Tensor:
        """The mask where an image begins in some rows (rows, 1): what they must forget is no longer seen."""
        return torch.where(begun & self._forgets, self._kept, self._mask)

    def _logits(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self._run(ids, self._mask, self._index, self._cache)
        logits = self._decoder.language.lm_head(hidden[:, -1]).float()
        return logits.view(len(self._lengths), len(self._names), -1)

    def _run(self, ids: torch.Tensor, mask: torch.Tensor, index: torch.Tensor, cache: Cache) -> torch.Tensor:
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = self._decoder.hidden(
            ids, mask, index_in_image=index, cache=cache, position_ids=positions, use_cache=True
        )
        return output.last_hidden_state


def _visible_prompts(
    prompt: list[int], names: tuple[str, ...], vocabulary: ImageVocabulary, others: dict[str, torch.Tensor | None]
) -> list[list[int]]:
    """What each row sees of a prompt; all see the begin mark of an image that it ends with."""
    opened = [token for token in prompt[-1:] if token == vocabulary.begin]
    codes = vocabulary.is_image(torch.tensor(prompt, device="cpu")).tolist()
    marks = (vocabulary.begin, vocabulary.end, vocabulary.start)
    images = [token for token, is_code in zip(prompt, codes, strict=True) if is_code or token in marks]
    seen = {"full": prompt, "image": images, "unconditional": opened}
    seen |= {name: [*ids.tolist(), *opened] for name, ids in others.items() if ids is not None}
    return [seen[name] for name in names]
