"""Interleaved generation: one cache through all segments against prefilling the whole sequence again for each."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from transformers import ChameleonConfig

from zoo.decoders import interleaved_generation as generation
from zoo.decoders.interleaved_models import SmallInterleaved, vocabulary_map
from zoo.decoders.vq_image import VQImage

IMAGES, CODES, WORDS_A_STEP = 4, 256, 24
SETTINGS = generation.GenerationSettings(guidance="normal", greedy=True, max_images=IMAGES + 1, max_new_tokens=2000)


def model() -> SmallInterleaved:
    """16 x 16 codes an image, 8 layers of width 512, random weights."""
    torch.manual_seed(0)
    tokenizer = VQImage(
        resolution=32, codes=512, embed_dim=32, base_channels=32, channel_multiplier=[1, 1], res_blocks=1
    )
    return SmallInterleaved(
        [f"word{n}" for n in range(500)], tokenizer, width=512, layers=8, heads=8, max_length=4096
    ).eval()


class Script:
    """Takes the model's own likeliest token but decides where text ends: an image after so many words, then the end."""

    def __init__(self, decoder: SmallInterleaved) -> None:
        self._vocabulary, self._choose, self.words, self.images = decoder.vocabulary, generation._choose, 0, 0

    def __call__(self, logits: torch.Tensor, settings: object, generator: torch.Generator) -> int:
        if torch.isfinite(logits[self._vocabulary.image_ids]).all():
            return self._choose(logits, settings, generator)
        self.words += 1
        if self.words % WORDS_A_STEP:
            forbidden = logits.clone()
            forbidden[[self._vocabulary.stop, self._vocabulary.begin]] = -torch.inf
            return self._choose(forbidden, settings, generator)
        self.images += 1
        return self._vocabulary.begin if self.images <= IMAGES else self._vocabulary.stop


def one_cache(decoder: SmallInterleaved, prompt: torch.Tensor) -> torch.Tensor:
    generation._choose, kept = Script(decoder), generation._choose
    try:
        return generation.generate(decoder, [prompt], SETTINGS)[0]
    finally:
        generation._choose = kept


def prefilled_again(decoder: SmallInterleaved, prompt: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """The same tokens with a fresh cache for each text and each image; text has one row, an image has three."""
    made, length = prompt, len(prompt)
    begins = [int(i) for i in (whole == decoder.vocabulary.begin).nonzero() if i >= length]
    edges = sorted([*(b + 1 for b in begins), *(b + 2 + CODES for b in begins), len(whole)])
    generation._choose, kept = Script(decoder), generation._choose
    try:
        for edge in edges:
            inside = int(made[-1]) == decoder.vocabulary.begin
            options = replace(SETTINGS, max_new_tokens=edge - len(made), guidance="normal" if inside else "none")
            made = generation.generate(decoder, [made], options)[0]
    finally:
        generation._choose = kept
    return made


def peak_of(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and the most resident memory above the start in MB, sampled while the work runs."""
    page, done, most = 4096, threading.Event(), [0]

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], resident())

    before, watcher = resident(), threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    work()
    taken = time.perf_counter() - start
    done.set()
    watcher.join()
    return taken, max(most[0] - before, 0) / 1e6


def bandwidth_share(positions: int = 2048, seen_images: int = 4, codes: int = 1024) -> tuple[float, float]:
    """At the 7B shape in bf16, on paper: bytes that a guided step must read over those that this loop reads, and the GB read.

    Must: weights once, and of the cache what each row sees. Reads: weights once, and every position for every row.
    """
    config = ChameleonConfig(vocabulary_map=vocabulary_map(8192, marks_from=8710))
    a_layer = 4 * config.hidden_size**2 + 3 * config.hidden_size * config.intermediate_size
    weights = 2 * (config.num_hidden_layers * a_layer + config.hidden_size * config.vocab_size)
    a_position = 2 * 2 * config.num_hidden_layers * config.hidden_size
    seen = positions + min(positions, seen_images * codes) + codes  # full, image-only and unconditional row
    read = weights + 3 * positions * a_position
    return (weights + min(seen, 3 * positions) * a_position) / read, read / 1e9


def generation_speed() -> None:
    """Tokens a second of both ways over the same tokens, peak memory, and the share of the bandwidth limit on paper."""
    decoder = model()
    prompt = torch.tensor([decoder.vocabulary.start, *range(600, 616), decoder.vocabulary.separator])
    whole = one_cache(decoder, prompt)
    new = len(whole) - len(prompt)
    ours, ours_memory = peak_of(lambda: one_cache(decoder, prompt))
    again: list[torch.Tensor] = []
    theirs, theirs_memory = peak_of(lambda: again.append(prefilled_again(decoder, prompt, whole)))
    same = float((again[0] == whole).float().mean()) if len(again[0]) == len(whole) else 0.0
    print(
        f"interleaved generation, {IMAGES} images of {CODES} codes, guidance normal, {new} tokens ({same:.0%} the same)"
    )
    print(f"one cache           {new / ours:8.1f} tokens/s, peak +{ours_memory:.0f} MB")
    print(f"prefilled each time {new / theirs:8.1f} tokens/s, peak +{theirs_memory:.0f} MB; ratio {theirs / ours:.2f}")
    share, read = bandwidth_share()
    print(f"7B in bf16, on paper: a guided step at 2048 positions reads {read:.1f} GB, {share:.0%} of which it must")


if __name__ == "__main__":
    generation_speed()
