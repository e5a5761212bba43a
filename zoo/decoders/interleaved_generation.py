"""Generation of text and images in one loop, with one cache through all segments and all guidance rows.

Nothing is computed twice: the official code gives each segment a sequence of its own and prefills everything again for each
image. A provided image goes through the model in one step.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from zoo.decoders.guidance_rows import GuidanceRows
from zoo.decoders.interleaved import ImageVocabulary, InterleavedDecoder
from zoo.errors import ArgumentError
from zoo.finite import check_finite

Guidance = Literal["none", "normal", "obj", "full"]
GUIDANCE_ROWS: dict[Guidance, tuple[str, ...]] = {
    "none": ("full",),
    "normal": ("full", "unconditional", "image"),
    "obj": ("full", "unconditional", "negative"),
    "full": ("full", "image", "unconditional", "negative", "original"),
}
"""The rows of each mode, in the official order."""
ImageProvider = Callable[[int, list[int]], torch.Tensor | None]
"""Called when a sample begins an image, with its index and generated ids; returns the image's ids, or None to generate them."""


@dataclass(frozen=True)
class GenerationSettings:
    """How to generate.

    ``guidance`` of image tokens mixes the logits of rows (f full, u unconditional, i image-only, n negative prompt, o original
    prompt); text is never guided:

    - "none": f
    - "normal": ``u + full_scale (f - u) + image_scale (i - u)``
    - "obj": ``u + full_scale (f - u) + negative_scale (u - n)``
    - "full": ``u + full_scale (f - i) + image_scale (i - u) + negative_scale (u - n) + original_scale (o - u)``

    ``greedy`` takes the most likely token; otherwise tokens are sampled with ``temperature`` from the ``top_k`` most likely ones
    (0 for all) and of these the nucleus of ``top_p``, ``image_top_p`` inside images, seeded by ``seed``. At most ``max_images``
    images are begun. Defaults are those of the official code; ``top_k`` is transformers' default, which it does not change.
    """

    max_new_tokens: int = 512
    max_images: int = 4
    guidance: Guidance = "none"
    full_scale: float = 2.0
    image_scale: float = 1.2
    negative_scale: float = 0.0
    original_scale: float = 5.0
    greedy: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.9
    image_top_p: float = 1.0
    seed: int = 0
    only_image: bool = False
    """Stop after the first complete image."""


@dataclass
class _State:
    """The progress of one sample.

    ``position_in_image`` counts codes since the last begin-of-image token and is None in text; ``remaining`` is how many
    tokens may follow.
    """

    prompt_ids: list[int]
    remaining: int
    position_in_image: int | None = None
    images: int = 0
    generated_ids: list[int] = field(default_factory=list)

    def append(self, token: int, vocabulary: ImageVocabulary) -> None:
        """Add a token."""
        self.generated_ids.append(token)
        self.remaining = 0 if token == vocabulary.eos_token_id else self.remaining - 1
        if token == vocabulary.boi_token_id:
            self.position_in_image, self.images = 0, self.images + 1
        elif token == vocabulary.eoi_token_id:
            self.position_in_image = None
        elif self.position_in_image is not None:
            self.position_in_image += 1


def apply_guidance(rows: torch.Tensor, settings: GenerationSettings) -> torch.Tensor:
    """Logits (vocabulary) from the logits of one sample's rows (rows, vocabulary)."""
    row = dict(zip(GUIDANCE_ROWS[settings.guidance], rows, strict=True))
    full = row["full"]
    if settings.guidance == "none":
        return full
    base = row["unconditional"]
    if settings.guidance == "normal":
        return base + settings.full_scale * (full - base) + settings.image_scale * (row["image"] - base)
    negative = settings.negative_scale * (base - row["negative"])
    if settings.guidance == "obj":
        return base + settings.full_scale * (full - base) + negative
    image = settings.full_scale * (full - row["image"]) + settings.image_scale * (row["image"] - base)
    return base + image + negative + settings.original_scale * (row["original"] - base)


@torch.no_grad()
def generate(
    decoder: InterleavedDecoder,
    prompts: list[torch.Tensor],
    settings: GenerationSettings,
    negative_prompt: torch.Tensor | None = None,
    original_prompt: torch.Tensor | None = None,
    provide_image: ImageProvider | None = None,
) -> list[torch.Tensor]:
    """Continue prompts (positions) of any lengths; a sample gets the same result in any batch.

    Args:
        decoder: the model, in evaluation mode.
        prompts: token ids with images in place.
        settings: how to generate.
        negative_prompt: token ids, for guidance "obj" and "full".
        original_prompt: token ids, for guidance "full".
        provide_image: provides images that are not to be generated.

    Returns:
        Token ids of each sample (positions), prompt included, on the CPU.

    Raises:
        ArgumentError: a prompt that the guidance needs is missing, or a provided image has the wrong number of codes.
    """
    states = [_State(prompt.tolist(), settings.max_new_tokens) for prompt in prompts]
    row_prompts = {"negative": negative_prompt, "original": original_prompt}
    for _ in _decode(decoder, states, settings, row_prompts, provide_image):
        pass
    return [torch.tensor(state.prompt_ids + state.generated_ids, device="cpu") for state in states]


@torch.no_grad()
def stream(
    decoder: InterleavedDecoder,
    prompt: torch.Tensor,
    settings: GenerationSettings,
    negative_prompt: torch.Tensor | None = None,
    original_prompt: torch.Tensor | None = None,
    provide_image: ImageProvider | None = None,
) -> Iterator[str | torch.Tensor]:
    """Continue one prompt (positions); yields text as it is generated, and the token ids of each complete image.

    Arguments are those of :func:`generate`; the decoder needs its text tokenizer.
    """
    from tokenizers.decoders import DecodeStream

    state, text = _State(prompt.tolist(), settings.max_new_tokens), DecodeStream(skip_special_tokens=True)
    row_prompts = {"negative": negative_prompt, "original": original_prompt}
    for (token,) in _decode(decoder, [state], settings, row_prompts, provide_image):
        if token == decoder.vocabulary.eoi_token_id:
            yield torch.tensor(state.generated_ids[-1 - decoder.tokens_per_image : -1], device="cpu")
        elif state.position_in_image is None and token != decoder.vocabulary.eos_token_id:
            if piece := text.step(decoder.tokenizer.backend_tokenizer, token):
                yield piece


@torch.no_grad()
def _decode(
    decoder: InterleavedDecoder,
    states: list[_State],
    settings: GenerationSettings,
    row_prompts: dict[str, torch.Tensor | None],
    provide_image: ImageProvider | None = None,
) -> Iterator[list[int]]:
    """Decode until all samples have ended; yields the newest token of each that was still running."""
    vocabulary, names = decoder.vocabulary, GUIDANCE_ROWS[settings.guidance]
    missing = [name for name in names if name in ("negative", "original") and row_prompts.get(name) is None]
    if missing:
        raise ArgumentError(f"guidance '{settings.guidance}' needs a prompt for: {', '.join(missing)}")
    for state in states:
        if state.prompt_ids[-1] == vocabulary.boi_token_id:
            state.position_in_image, state.images = 0, 1
    running = [index for index, state in enumerate(states) if state.remaining > 0]
    if not running:
        return
    rows = GuidanceRows(decoder, names, [states[index].prompt_ids for index in running], row_prompts)
    sampler, logits = _TokenSampler(decoder, settings, len(states)), rows.prefill()
    while True:
        for index, token in zip(running, sampler([(i, states[i]) for i in running], logits), strict=True):
            states[index].append(token, vocabulary)
        images = {} if provide_image is None else _provide_images(decoder, states, running, provide_image)
        yield [states[index].generated_ids[-1] for index in running]
        if images:
            rows.insert(images)
        unfinished = [position for position, index in enumerate(running) if states[index].remaining > 0]
        if not unfinished:
            return
        if len(unfinished) < len(running):
            rows.keep(unfinished)
            running = [running[position] for position in unfinished]
        logits = rows.append([states[index].generated_ids[-1] for index in running])


def _provide_images(
    decoder: InterleavedDecoder, states: list[_State], running: list[int], provide_image: ImageProvider
) -> dict[int, list[int]]:
    """Append a complete image, end-of-image token included, to samples that have begun one.

    Returns:
        By position in ``running``: begin-of-image token and codes, which must go through the model before the end-of-image
        token does.
    """
    vocabulary, images = decoder.vocabulary, {}
    for position, index in enumerate(running):
        state = states[index]
        if state.generated_ids[-1] != vocabulary.boi_token_id or state.remaining == 0:
            continue
        if (image := provide_image(index, state.generated_ids)) is None:
            continue
        if image.shape != (decoder.tokens_per_image,):
            raise ArgumentError(
                f"a provided image must have shape ({decoder.tokens_per_image},); got {tuple(image.shape)}"
            )
        image_ids = image.tolist()
        for token in [*image_ids, vocabulary.eoi_token_id][: state.remaining]:
            state.append(token, vocabulary)
        if state.remaining > 0:
            images[position] = [vocabulary.boi_token_id, *image_ids]
    return images


class _TokenSampler:
    """Chooses the next tokens, with one synchronization with the device per step."""

    def __init__(self, decoder: InterleavedDecoder, settings: GenerationSettings, samples: int) -> None:
        vocabulary, device = decoder.vocabulary, decoder.device
        self._vocabulary, self._tokens_per_image, self._settings = vocabulary, decoder.tokens_per_image, settings
        self._image_settings = replace(settings, top_p=settings.image_top_p)
        self._generators = [
            torch.Generator(device=device).manual_seed(settings.seed + sample) for sample in range(samples)
        ]
        token_ids = torch.arange(len(vocabulary.code_of), device=device)
        is_code = vocabulary.is_image(token_ids)
        never = (token_ids == vocabulary.eoi_token_id) | (token_ids == vocabulary.pad_token_id)
        never |= token_ids == vocabulary.image_token_id
        self._not_in_image, self._not_in_text = ~is_code, is_code | never
        self._not_in_last_text = self._not_in_text | (token_ids == vocabulary.boi_token_id)

    def __call__(self, samples: list[tuple[int, _State]], logits: torch.Tensor) -> list[int]:
        """A token for each sample (index, state) from logits (samples, rows, vocabulary)."""
        tokens = [self._forced(state) for _, state in samples]
        sampled = [
            self._sample(index, state, rows)
            for (index, state), rows, token in zip(samples, logits, tokens, strict=True)
            if token is None
        ]
        choices = iter(torch.stack(sampled).tolist() if sampled else [])
        return [next(choices) if token is None else token for token in tokens]

    def _forced(self, state: _State) -> int | None:
        if state.position_in_image == self._tokens_per_image:
            return self._vocabulary.eoi_token_id
        generated_ids = state.generated_ids
        if self._settings.only_image and generated_ids and generated_ids[-1] == self._vocabulary.eoi_token_id:
            return self._vocabulary.eos_token_id
        return None

    def _sample(self, index: int, state: _State, logits: torch.Tensor) -> torch.Tensor:
        """Codes inside an image; in text anything but codes, and the begin-of-image token if another image is allowed."""
        if state.position_in_image is not None:
            settings, forbidden = self._image_settings, self._not_in_image
            mixed = apply_guidance(logits, settings)
        else:
            settings, mixed = self._settings, logits[0]
            last = state.images >= settings.max_images
            forbidden = self._not_in_last_text if last else self._not_in_text
        check_finite(mixed, "the logits of the next token")
        return sample_token(mixed.masked_fill(forbidden, -torch.inf), settings, self._generators[index])


def sample_token(logits: torch.Tensor, settings: GenerationSettings, generator: torch.Generator) -> torch.Tensor:
    """A token id () from logits (vocabulary): the most likely one, or one from the ``top_k`` and the nucleus of ``top_p``."""
    if settings.greedy:
        return logits.argmax()
    scaled, order = (logits / settings.temperature).sort(descending=True)
    kept = settings.top_k or len(scaled)
    probabilities, order = scaled[:kept].softmax(dim=-1), order[:kept]
    outside = probabilities.cumsum(dim=-1) - probabilities >= settings.top_p
    nucleus = probabilities.masked_fill(outside, 0.0)
    return order[torch.multinomial(nucleus / nucleus.sum(), 1, generator=generator)].squeeze(0)
