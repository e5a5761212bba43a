"""Generation of text and images in one loop, with one cache through all segments and all guidance rows.

A sample has one row for each condition that guidance mixes. All rows hold the same positions; what a row must not see is
masked in it, and its positions count only what it sees. So nothing is computed twice: the official code, which gives each
segment a sequence of its own, prefills everything again for each image.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers.cache_utils import Cache, DynamicLayer

from zoo.decoders.interleaved import ImageVocabulary, InterleavedDecoder

_AHEAD = 256
"""Positions of room that a full cache is grown by."""
Guidance = Literal["none", "normal", "obj", "full"]
ROWS: dict[Guidance, tuple[str, ...]] = {
    "none": ("full",),
    "normal": ("full", "unconditional", "image"),
    "obj": ("full", "unconditional", "negative"),
    "full": ("full", "image", "unconditional", "negative", "original"),
}
"""The rows of each mode, in the official order."""
Given = Callable[[int, list[int]], torch.Tensor | None]
"""Asked when a sample begins an image: its index and its new ids so far; the image's ids, or None to have it written."""


@dataclass(frozen=True)
class GenerationSettings:
    """How to generate.

    ``guidance`` of image tokens mixes the logits of rows (f full, u unconditional, i image-only, n negative prompt, o original
    prompt); text is never guided:

    - "none": f
    - "normal": ``u + full_scale (f - u) + image_scale (i - u)``
    - "obj": ``u + full_scale (f - u) + negative_scale (u - n)``
    - "full": ``u + full_scale (f - i) + image_scale (i - u) + negative_scale (u - n) + original_scale (o - u)``

    ``greedy`` takes the likeliest token, else tokens are drawn with ``temperature`` and nucleus ``top_p`` by ``seed``. At
    most ``max_images`` images are begun.
    """

    max_new_tokens: int = 512
    max_images: int = 4
    guidance: Guidance = "none"
    full_scale: float = 2.0
    image_scale: float = 1.2
    negative_scale: float = 0.5
    original_scale: float = 5.0
    greedy: bool = False
    temperature: float = 1.0
    top_p: float = 0.9
    seed: int = 0
    only_image: bool = False
    """Stop after the first whole image."""


@dataclass
class _State:
    """Where one sample is: ``inside`` counts codes since the last begin mark, None in text."""

    ids: list[int]
    inside: int | None = None
    images: int = 0
    done: bool = False
    new: list[int] = field(default_factory=list)
    given: list[int] = field(default_factory=list)
    """Ids that come next, whatever the model says."""


class _GrowingLayer(DynamicLayer):
    """A layer's cache with room ahead, so that a step copies one position and not all of them."""

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


def guided(rows: torch.Tensor, settings: GenerationSettings) -> torch.Tensor:
    """Mix logits (rows, vocabulary) of one sample into one (vocabulary)."""
    row = dict(zip(ROWS[settings.guidance], rows, strict=True))
    full = row["full"]
    if settings.guidance == "none":
        return full
    base = row["unconditional"]
    if settings.guidance == "normal":
        return base + settings.full_scale * (full - base) + settings.image_scale * (row["image"] - base)
    away = settings.negative_scale * (base - row["negative"])
    if settings.guidance == "obj":
        return base + settings.full_scale * (full - base) + away
    onto_image = settings.full_scale * (full - row["image"]) + settings.image_scale * (row["image"] - base)
    return base + onto_image + away + settings.original_scale * (row["original"] - base)


@torch.no_grad()
def generate(
    decoder: InterleavedDecoder,
    prompts: list[torch.Tensor],
    settings: GenerationSettings,
    negative: torch.Tensor | None = None,
    original: torch.Tensor | None = None,
    given: Given | None = None,
) -> list[torch.Tensor]:
    """Continue prompts (positions) of any lengths; each result is what one alone would give, prompt included.

    Args:
        decoder: the model, in evaluation mode.
        prompts: ids with images in place.
        settings: how to generate.
        negative: ids of the negative prompt, for guidance "obj" and "full".
        original: ids of the original prompt, for guidance "full".
        given: supplies images instead of having them written.

    Raises:
        ValueError: the guidance needs a prompt that is not given.
    """
    states = [_State(prompt.tolist()) for prompt in prompts]
    for _ in _advance(decoder, states, settings, {"negative": negative, "original": original}, given):
        pass
    return [torch.tensor(state.ids + state.new) for state in states]


@torch.no_grad()
def stream(
    decoder: InterleavedDecoder,
    prompt: torch.Tensor,
    settings: GenerationSettings,
    negative: torch.Tensor | None = None,
    original: torch.Tensor | None = None,
    given: Given | None = None,
) -> Iterator[str | torch.Tensor]:
    """Continue one prompt (positions) and yield pieces of text as they come, and each image's ids (codes) when it is whole.

    Arguments are those of :func:`generate`; the decoder needs its text tokenizer.
    """
    from tokenizers.decoders import DecodeStream

    state, text = _State(prompt.tolist()), DecodeStream(skip_special_tokens=True)
    for (token,) in _advance(decoder, [state], settings, {"negative": negative, "original": original}, given):
        if token == decoder.vocabulary.end:
            yield torch.tensor(state.new[-1 - decoder.codes_an_image : -1])
        elif token is not None and state.inside is None and not state.done:
            if piece := text.step(decoder.text.backend_tokenizer, token):
                yield piece


@torch.no_grad()
def _advance(
    decoder: InterleavedDecoder,
    states: list[_State],
    settings: GenerationSettings,
    others: dict[str, torch.Tensor | None],
    given: Given | None = None,
) -> Iterator[list[int | None]]:
    """Advance all states token by token; yields each sample's new token, None where it has ended."""
    vocabulary, rows = decoder.vocabulary, ROWS[settings.guidance]
    missing = [row for row in rows if row in ("negative", "original") and others.get(row) is None]
    if missing:
        raise ValueError(f"guidance '{settings.guidance}' needs a prompt for: {', '.join(missing)}")
    ids, mask = _prefix(states, vocabulary, rows, others)
    prompt_length, seen = ids.shape[1], ids
    generators = [torch.Generator().manual_seed(settings.seed + index) for index in range(len(states))]
    cache = Cache(layer_class_to_replicate=_GrowingLayer)
    for _ in range(settings.max_new_tokens):
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = decoder.hidden(ids, mask, seen=seen, cache=cache, position_ids=positions, use_cache=True)
        logits = decoder.language.lm_head(output.last_hidden_state[:, -1]).float().view(len(states), len(rows), -1)
        tokens = [
            None if state.done else _next(state, sample, decoder, settings, generator)
            for state, sample, generator in zip(states, logits, generators, strict=True)
        ]
        for index, (state, token) in enumerate(zip(states, tokens, strict=True)):
            if given is not None and token == vocabulary.begin and (image := given(index, state.new)) is not None:
                state.given = image.tolist()
        yield tokens
        if all(state.done for state in states):
            return
        following = torch.tensor([vocabulary.pad if token is None else token for token in tokens])
        ids = following.repeat_interleave(len(rows))[:, None]
        seen = torch.cat([seen, ids], dim=1)
        mask = _seen(mask, states, tokens, vocabulary, rows, prompt_length)


def _prefix(
    states: list[_State], vocabulary: ImageVocabulary, rows: tuple[str, ...], others: dict[str, torch.Tensor | None]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each row sees of the prompts, left-padded to one length, and the mask of it."""
    lines: list[torch.Tensor] = []
    for state in states:
        prompt = torch.tensor(state.ids)
        opened = prompt[prompt.numel() - int(state.ids[-1] == vocabulary.begin) :]
        marks = (prompt == vocabulary.begin) | (prompt == vocabulary.end) | (prompt == vocabulary.start)
        seen = {"full": prompt, "unconditional": opened, "image": prompt[marks | vocabulary.is_image(prompt)]}
        seen |= {name: torch.cat([ids, opened]) for name, ids in others.items() if ids is not None}
        lines += [seen[row] for row in rows]
        if len(opened):
            state.inside, state.images = 0, 1
    length = max(len(line) for line in lines)
    ids = torch.stack([torch.cat([torch.full((length - len(line),), vocabulary.pad), line]) for line in lines])
    mask = torch.stack([torch.arange(length) >= length - len(line) for line in lines]).long()
    return ids, mask


def _seen(
    mask: torch.Tensor,
    states: list[_State],
    tokens: list[int | None],
    vocabulary: ImageVocabulary,
    rows: tuple[str, ...],
    prompt_length: int,
) -> torch.Tensor:
    """The mask with one more position.

    The image row sees all images and no text; the other rows beside the full one see their own prompt (the unconditional
    row has none) and the image at hand.
    """
    column = torch.zeros(len(mask), 1, dtype=mask.dtype)
    for index, (state, token) in enumerate(zip(states, tokens, strict=True)):
        if token is None:
            continue
        for offset, row in enumerate(rows):
            line = index * len(rows) + offset
            if token == vocabulary.begin and row not in ("full", "image"):
                mask[line, 0 if row == "unconditional" else prompt_length :] = 0
            inside = state.inside is not None or (row == "image" and token == vocabulary.end)
            column[line] = 1 if row == "full" else int(inside)
    return torch.cat([mask, column], dim=1)


def _next(
    state: _State,
    logits: torch.Tensor,
    decoder: InterleavedDecoder,
    settings: GenerationSettings,
    generator: torch.Generator,
) -> int:
    """Choose a sample's next token and move its state on."""
    vocabulary = decoder.vocabulary
    if state.inside is not None and state.inside == decoder.codes_an_image:
        token = vocabulary.end
    elif state.given:
        token = state.given.pop(0)
    else:
        allowed = _allowed(state, logits.shape[-1], vocabulary, settings)
        mixed = guided(logits, settings) if state.inside is not None else logits[0]
        token = _choose(mixed.masked_fill(~allowed, -torch.inf), settings, generator)
    if settings.only_image and state.new and state.new[-1] == vocabulary.end:
        token = vocabulary.stop
    state.new.append(token)
    if token == vocabulary.begin:
        state.inside, state.images = 0, state.images + 1
    elif token == vocabulary.end:
        state.inside = None
    elif state.inside is not None:
        state.inside += 1
    state.done = token == vocabulary.stop
    return token


def _allowed(state: _State, size: int, vocabulary: ImageVocabulary, settings: GenerationSettings) -> torch.Tensor:
    """Which tokens may come: codes inside an image; in text all but codes and the end mark, and a new image if there is room."""
    codes = torch.zeros(size, dtype=torch.bool)
    codes[vocabulary.image_ids] = True
    if state.inside is not None:
        return codes
    allowed = ~codes
    allowed[vocabulary.end] = allowed[vocabulary.pad] = allowed[vocabulary.placeholder] = False
    allowed[vocabulary.begin] = state.images < settings.max_images
    return allowed


def _choose(logits: torch.Tensor, settings: GenerationSettings, generator: torch.Generator) -> int:
    if settings.greedy:
        return int(logits.argmax())
    ordered, order = (logits / settings.temperature).softmax(dim=-1).sort(descending=True)
    outside = ordered.cumsum(dim=-1) - ordered >= settings.top_p
    kept = ordered.masked_fill(outside, 0.0)
    return int(order[torch.multinomial(kept / kept.sum(), 1, generator=generator)])
