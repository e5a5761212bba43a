"""Generation of text and images in one loop, with one cache through all segments and all guidance rows.

So nothing is computed twice: the official code, which gives each segment a sequence of its own, prefills everything again for
each image. An image that is given goes through the model in one step.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch

from zoo.decoders.guidance_rows import GuidanceRows
from zoo.decoders.interleaved import ImageVocabulary, InterleavedDecoder
from zoo.errors import ArgumentError

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
    """Where one sample is: ``inside`` counts codes since the last begin mark, None in text; ``left`` the tokens it may add."""

    ids: list[int]
    left: int
    inside: int | None = None
    images: int = 0
    new: list[int] = field(default_factory=list)

    def take(self, token: int, vocabulary: ImageVocabulary) -> None:
        """Move on by one token."""
        self.new.append(token)
        self.left = 0 if token == vocabulary.stop else self.left - 1
        if token == vocabulary.begin:
            self.inside, self.images = 0, self.images + 1
        elif token == vocabulary.end:
            self.inside = None
        elif self.inside is not None:
            self.inside += 1


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

    Returns:
        Ids of each sample (positions), on the CPU.

    Raises:
        ArgumentError: the guidance needs a prompt that is not given, or a given image does not have the codes of an image.
    """
    states = [_State(prompt.tolist(), settings.max_new_tokens) for prompt in prompts]
    for _ in _advance(decoder, states, settings, {"negative": negative, "original": original}, given):
        pass
    return [torch.tensor(state.ids + state.new, device="cpu") for state in states]


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

    state, text = _State(prompt.tolist(), settings.max_new_tokens), DecodeStream(skip_special_tokens=True)
    for (token,) in _advance(decoder, [state], settings, {"negative": negative, "original": original}, given):
        if token == decoder.vocabulary.end:
            yield torch.tensor(state.new[-1 - decoder.codes_an_image : -1], device="cpu")
        elif state.inside is None and token != decoder.vocabulary.stop:
            if piece := text.step(decoder.text.backend_tokenizer, token):
                yield piece


@torch.no_grad()
def _advance(
    decoder: InterleavedDecoder,
    states: list[_State],
    settings: GenerationSettings,
    others: dict[str, torch.Tensor | None],
    given: Given | None = None,
) -> Iterator[list[int]]:
    """Advance all states until they end; yields the newest token of each that had not ended before."""
    vocabulary, names = decoder.vocabulary, ROWS[settings.guidance]
    missing = [name for name in names if name in ("negative", "original") and others.get(name) is None]
    if missing:
        raise ArgumentError(f"guidance '{settings.guidance}' needs a prompt for: {', '.join(missing)}")
    for state in states:
        if state.ids[-1] == vocabulary.begin:
            state.inside, state.images = 0, 1
    running = [index for index, state in enumerate(states) if state.left > 0]
    if not running:
        return
    rows = GuidanceRows(decoder, names, [states[index].ids for index in running], others)
    choice, logits = _Choice(decoder, settings, len(states)), rows.prefill()
    while True:
        for index, token in zip(running, choice([(i, states[i]) for i in running], logits), strict=True):
            states[index].take(token, vocabulary)
        images = {} if given is None else _take_given(decoder, states, running, given)
        yield [states[index].new[-1] for index in running]
        if images:
            rows.insert(images)
        going_on = [position for position, index in enumerate(running) if states[index].left > 0]
        if not going_on:
            return
        if len(going_on) < len(running):
            rows.keep(going_on)
            running = [running[position] for position in going_on]
        logits = rows.append([states[index].new[-1] for index in running])


def _take_given(
    decoder: InterleavedDecoder, states: list[_State], running: list[int], given: Given
) -> dict[int, list[int]]:
    """Give samples that have begun an image the whole of it, end mark included.

    Returns:
        By position among those that run: begin mark and codes, which must go through the model before the end mark.
    """
    vocabulary, images = decoder.vocabulary, {}
    for position, index in enumerate(running):
        state = states[index]
        if state.new[-1] != vocabulary.begin or state.left == 0 or (image := given(index, state.new)) is None:
            continue
        if image.shape != (decoder.codes_an_image,):
            raise ArgumentError(f"a given image has {decoder.codes_an_image} codes; {tuple(image.shape)} were given")
        codes = image.tolist()
        for token in [*codes, vocabulary.end][: state.left]:
            state.take(token, vocabulary)
        if state.left > 0:
            images[position] = [vocabulary.begin, *codes]
    return images


class _Choice:
    """Chooses next tokens, with one wait for the device a step."""

    def __init__(self, decoder: InterleavedDecoder, settings: GenerationSettings, samples: int) -> None:
        vocabulary, device = decoder.vocabulary, decoder.device
        self._vocabulary, self._codes_an_image, self._settings = vocabulary, decoder.codes_an_image, settings
        self._generators = [
            torch.Generator(device=device).manual_seed(settings.seed + sample) for sample in range(samples)
        ]
        ids = torch.arange(len(vocabulary.code_of), device=device)
        codes = vocabulary.is_image(ids)
        never = (ids == vocabulary.end) | (ids == vocabulary.pad) | (ids == vocabulary.placeholder)
        self._not_in_image, self._not_in_text = ~codes, codes | never
        self._not_in_last_text = self._not_in_text | (ids == vocabulary.begin)

    def __call__(self, samples: list[tuple[int, _State]], logits: torch.Tensor) -> list[int]:
        """A token for each sample (index, state) from logits (samples, rows, vocabulary)."""
        tokens = [self._forced(state) for _, state in samples]
        drawn = [
            self._draw(index, state, rows)
            for (index, state), rows, token in zip(samples, logits, tokens, strict=True)
            if token is None
        ]
        chosen = iter(torch.stack(drawn).tolist() if drawn else [])
        return [next(chosen) if token is None else token for token in tokens]

    def _forced(self, state: _State) -> int | None:
        if state.inside == self._codes_an_image:
            return self._vocabulary.end
        if self._settings.only_image and state.new and state.new[-1] == self._vocabulary.end:
            return self._vocabulary.stop
        return None

    def _draw(self, index: int, state: _State, logits: torch.Tensor) -> torch.Tensor:
        """Codes inside an image; in text all but codes and marks that only images have, and a new image if there is room."""
        if state.inside is not None:
            mixed, forbidden = guided(logits, self._settings), self._not_in_image
        else:
            last = state.images >= self._settings.max_images
            mixed, forbidden = logits[0], self._not_in_last_text if last else self._not_in_text
        return _choose(mixed.masked_fill(forbidden, -torch.inf), self._settings, self._generators[index])


def _choose(logits: torch.Tensor, settings: GenerationSettings, generator: torch.Generator) -> torch.Tensor:
    """A token () from logits (vocabulary)."""
    if settings.greedy:
        return logits.argmax()
    ordered, order = (logits / settings.temperature).softmax(dim=-1).sort(descending=True)
    outside = ordered.cumsum(dim=-1) - ordered >= settings.top_p
    kept = ordered.masked_fill(outside, 0.0)
    return order[torch.multinomial(kept / kept.sum(), 1, generator=generator)].squeeze(0)
