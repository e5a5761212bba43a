"""Generation of text and images in one loop, with one cache through all segments and all guidance rows.

A sample has one row for each condition that guidance mixes. All rows hold the same positions; what a row must not see is
masked in it, and its positions count only what it sees. So nothing is computed twice: the official code, which gives each
segment a sequence of its own, prefills everything again for each image.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import DynamicCache

from zoo.decoders.interleaved import ImageVocabulary, InterleavedDecoder

Guidance = Literal["none", "normal"]


@dataclass(frozen=True)
class GenerationSettings:
    """How to generate.

    ``guidance`` (of image tokens): "none", or "normal": rows full, unconditional and image-only, mixed as
    ``u + full_scale (f - u) + image_scale (i - u)``. Text is never guided. ``greedy`` takes the likeliest token, else
    tokens are drawn with ``temperature`` and nucleus ``top_p`` by ``seed``. At most ``max_images`` images are begun.
    """

    max_new_tokens: int = 512
    max_images: int = 4
    guidance: Guidance = "none"
    full_scale: float = 2.0
    image_scale: float = 1.2
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


def guided(rows: torch.Tensor, settings: GenerationSettings) -> torch.Tensor:
    """Mix logits (rows, vocabulary) of one sample into one (vocabulary)."""
    if settings.guidance == "none":
        return rows[0]
    full, unconditional, image = rows
    return unconditional + settings.full_scale * (full - unconditional) + settings.image_scale * (image - unconditional)


@torch.no_grad()
def generate(
    decoder: InterleavedDecoder, prompts: list[torch.Tensor], settings: GenerationSettings
) -> list[torch.Tensor]:
    """Continue prompts (positions) of any lengths; each result is what one alone would give, prompt included."""
    states = [_State(prompt.tolist()) for prompt in prompts]
    for _ in stream(decoder, states, settings):
        pass
    return [torch.tensor(state.ids + state.new) for state in states]


@torch.no_grad()
def stream(
    decoder: InterleavedDecoder, states: list[_State], settings: GenerationSettings
) -> Iterator[list[int | None]]:
    """Advance all states token by token; yields each sample's new token, None where it has ended."""
    vocabulary = decoder.vocabulary
    rows = 1 if settings.guidance == "none" else 3
    ids, mask = _prefix(states, vocabulary, rows)
    generators = [torch.Generator().manual_seed(settings.seed + index) for index in range(len(states))]
    cache = DynamicCache()
    for _ in range(settings.max_new_tokens):
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = decoder.hidden(ids, mask, past_key_values=cache, position_ids=positions, use_cache=True)
        logits = decoder.language.lm_head(output.last_hidden_state[:, -1]).float().view(len(states), rows, -1)
        tokens = [
            None if state.done else _next(state, sample, decoder, settings, generator)
            for state, sample, generator in zip(states, logits, generators, strict=True)
        ]
        yield tokens
        if all(state.done for state in states):
            return
        ids = torch.tensor([vocabulary.pad if token is None else token for token in tokens]).repeat_interleave(rows)[
            :, None
        ]
        mask = _seen(mask, states, tokens, vocabulary, rows)


def _prefix(states: list[_State], vocabulary: ImageVocabulary, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Left-padded prompts, one line a row, and what each row sees of them."""
    length = max(len(state.ids) for state in states)
    ids = torch.full((len(states) * rows, length), vocabulary.pad)
    mask = torch.zeros_like(ids)
    for index, state in enumerate(states):
        prompt = torch.tensor(state.ids)
        own = slice(index * rows, (index + 1) * rows)
        ids[own, -len(prompt) :] = prompt
        mask[index * rows, -len(prompt) :] = 1
        if rows > 1:
            marks = (prompt == vocabulary.begin) | (prompt == vocabulary.end) | (prompt == vocabulary.start)
            mask[index * rows + 2, -len(prompt) :] = (marks | vocabulary.is_image(prompt)).long()
            if state.ids[-1] == vocabulary.begin:
                mask[index * rows + 1, -1] = 1
        if state.ids[-1] == vocabulary.begin:
            state.inside, state.images = 0, 1
    return ids, mask


def _seen(
    mask: torch.Tensor, states: list[_State], tokens: list[int | None], vocabulary: ImageVocabulary, rows: int
) -> torch.Tensor:
    """The mask with one more position: the unconditional row sees only the image at hand, the image row only images."""
    column = torch.zeros(len(mask), 1, dtype=mask.dtype)
    for index, (state, token) in enumerate(zip(states, tokens, strict=True)):
        if token is None:
            continue
        first = index * rows
        column[first] = 1
        if rows > 1:
            if token == vocabulary.begin:
                mask[first + 1] = 0
            column[first + 1] = int(state.inside is not None)
            column[first + 2] = int(state.inside is not None or token == vocabulary.end)
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
