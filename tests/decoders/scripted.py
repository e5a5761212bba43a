"""Generation by a script, for tests and benchmarks: where text turns into images is set, all else is the model's choice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from zoo.decoders import interleaved_generation as generation
from zoo.decoders.interleaved import InterleavedDecoder


@dataclass
class _Sample:
    words: list[int] | None
    new: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)


class _Script:
    """Stands in for ``_choose``; knows a sample by the seed of its generator."""

    def __init__(
        self, decoder: InterleavedDecoder, words: Sequence[Sequence[int] | None], given: generation.Given | None
    ) -> None:
        self._vocabulary, self._choose, self._given = decoder.vocabulary, generation._choose, given
        self._codes = set(decoder.vocabulary.image_ids.tolist())
        self._samples = [_Sample(None if counts is None else list(counts)) for counts in words]

    def __call__(
        self, logits: torch.Tensor, settings: generation.GenerationSettings, generator: torch.Generator
    ) -> torch.Tensor:
        sample = self._samples[generator.initial_seed() - settings.seed]
        if bool(torch.isfinite(logits[self._vocabulary.image_ids]).all()):
            token = sample.codes.pop(0) if sample.codes else int(self._choose(logits, settings, generator))
        else:
            if sample.new and sample.new[-1] in self._codes:
                sample.new.append(self._vocabulary.end)
            token = self._in_text(sample, logits, settings, generator)
        sample.new.append(token)
        if token == self._vocabulary.begin and self._given is not None:
            image = self._given(generator.initial_seed() - settings.seed, sample.new)
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
            return int(self._choose(logits, settings, generator))
        if sample.words[0] > 0:
            sample.words[0] -= 1
            words = logits.clone()
            words[[self._vocabulary.begin, self._vocabulary.stop]] = -torch.inf
            return int(self._choose(words, settings, generator))
        del sample.words[0]
        return self._vocabulary.begin if sample.words else self._vocabulary.stop


@contextmanager
def scripted(
    decoder: InterleavedDecoder,
    words: Sequence[Sequence[int] | None],
    code_by_code: generation.Given | None = None,
) -> Iterator[None]:
    """Set for each sample how many words come before each image and, last, before the end; None leaves it to the model.

    With ``code_by_code`` the model is made to write the given images, one code a step: the slow way to what ``given`` does.
    """
    choose, generation._choose = generation._choose, _Script(decoder, words, code_by_code)
    try:
        yield
    finally:
        generation._choose = choose
