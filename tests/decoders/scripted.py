"""Generation by a script, for tests and benchmarks: where images begin is fixed, everything else is the model's choice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from zoo.decoders import interleaved_generation as generation
from zoo.decoders.interleaved import InterleavedDecoder


@dataclass
class _Sample:
    words: list[int] | None
    generated_ids: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)


class _Script:
    """Replaces ``sample_token``; identifies a sample by the seed of its generator."""

    def __init__(
        self,
        decoder: InterleavedDecoder,
        words: Sequence[Sequence[int] | None],
        provide_image: generation.ImageProvider | None,
    ) -> None:
        self._vocabulary, self._provide_image = decoder.vocabulary, provide_image
        self._sample_token = generation.sample_token
        self._codes = set(decoder.vocabulary.image_ids.tolist())
        self._samples = [_Sample(None if counts is None else list(counts)) for counts in words]

    def __call__(
        self, logits: torch.Tensor, settings: generation.GenerationSettings, generator: torch.Generator
    ) -> torch.Tensor:
        index = generator.initial_seed() - settings.seed
        sample = self._samples[index]
        if bool(torch.isfinite(logits[self._vocabulary.image_ids]).all()):
            token = sample.codes.pop(0) if sample.codes else int(self._sample_token(logits, settings, generator))
        else:
            if sample.generated_ids and sample.generated_ids[-1] in self._codes:
                sample.generated_ids.append(self._vocabulary.eoi_token_id)
            token = self._in_text(sample, logits, settings, generator)
        sample.generated_ids.append(token)
        if token == self._vocabulary.boi_token_id and self._provide_image is not None:
            image = self._provide_image(index, sample.generated_ids)
            sample.codes = [] if image is None else image.tolist()
        return torch.tensor(token, device=logits.device)

    def _in_text(
        self,
        sample: _Sample,
        logits: torch.Tensor,
        settings: generation.GenerationSettings,
        generator: torch.Generator,
    ) -> int:
        if sample.words is None:
            return int(self._sample_token(logits, settings, generator))
        if sample.words[0] > 0:
            sample.words[0] -= 1
            word_logits = logits.clone()
            word_logits[[self._vocabulary.boi_token_id, self._vocabulary.eos_token_id]] = -torch.inf
            return int(self._sample_token(word_logits, settings, generator))
        del sample.words[0]
        return self._vocabulary.boi_token_id if sample.words else self._vocabulary.eos_token_id


@contextmanager
def scripted(
    decoder: InterleavedDecoder,
    words: Sequence[Sequence[int] | None],
    code_by_code: generation.ImageProvider | None = None,
) -> Iterator[None]:
    """Set for each sample how many words precede each image and the end; None leaves that to the model.

    With ``code_by_code`` the model generates the images that it is provided with, one code per step: the slow equivalent of
    ``provide_image``.
    """
    original = generation.sample_token
    generation.sample_token = _Script(decoder, words, code_by_code)  # type: ignore[assignment]
    try:
        yield
    finally:
        generation.sample_token = original
