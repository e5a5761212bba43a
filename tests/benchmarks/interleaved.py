"""Interleaved generation: one cache against prefilling again for each segment, provided images whole against code by code,
and a batch against one by one.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from transformers import ChameleonConfig

from tests.decoders.scripted import scripted
from zoo.decoders import interleaved_generation as generation
from zoo.decoders.interleaved_models import SmallInterleaved, vocabulary_map
from zoo.decoders.vq_image import VQImage

IMAGES, CODES = 4, 256
WORDS = [23] * (IMAGES + 1)
"""How many words come before each image and before the end."""
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


def one_cache(decoder: SmallInterleaved, prompt: torch.Tensor) -> torch.Tensor:
    """Images written by the model, guided."""
    with scripted(decoder, [WORDS]):
        return generation.generate(decoder, [prompt], SETTINGS)[0]


def prefilled_again(decoder: SmallInterleaved, prompt: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """The same tokens with a fresh cache for each text and each image; text has one row, an image has three."""
    made, length = prompt, len(prompt)
    begins = [int(i) for i in (whole == decoder.vocabulary.boi_token_id).nonzero() if i >= length]
    edges = sorted([*(b + 1 for b in begins), *(b + 2 + CODES for b in begins), len(whole)])
    with scripted(decoder, [WORDS]):
        for edge in edges:
            inside = int(made[-1]) == decoder.vocabulary.boi_token_id
            options = replace(SETTINGS, max_new_tokens=edge - len(made), guidance="normal" if inside else "none")
            made = generation.generate(decoder, [made], options)[0]
    return made


def crop_of(decoder: SmallInterleaved) -> generation.ImageProvider:
    """Evidence as ``crop`` gives it, already encoded: an image that depends on what was said."""

    def provide_image(index: int, generated_ids: list[int]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(sum(generated_ids))
        return decoder.vocabulary.image_ids[torch.randint(512, (CODES,), generator=generator)]

    return provide_image


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
    config = ChameleonConfig(vocabulary_map=vocabulary_map(8192, sep_token_id=8710))
    a_layer = 4 * config.hidden_size**2 + 3 * config.hidden_size * config.intermediate_size
    weights = 2 * (config.num_hidden_layers * a_layer + config.hidden_size * config.vocab_size)
    a_position = 2 * 2 * config.num_hidden_layers * config.hidden_size
    seen = positions + min(positions, seen_images * codes) + codes  # full, image-only and unconditional row
    read = weights + 3 * positions * a_position
    return (weights + min(seen, 3 * positions) * a_position) / read, read / 1e9


def a_prompt(decoder: SmallInterleaved, index: int = 0) -> torch.Tensor:
    """Sixteen words, other ones for each index."""
    return torch.tensor(
        [decoder.vocabulary.bos_token_id, *range(600 + index, 616 + index), decoder.vocabulary.sep_token_id]
    )


def cache_speed(decoder: SmallInterleaved) -> None:
    """Tokens a second of both ways over the same tokens, peak memory, and the share of the bandwidth limit on paper."""
    prompt = a_prompt(decoder)
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


def provided_image_speed(decoder: SmallInterleaved) -> None:
    """Tokens a second of traces whose images are provided, as evidence mode crop."""
    prompt, provide_image, options = a_prompt(decoder), crop_of(decoder), replace(SETTINGS, guidance="none")

    def whole() -> torch.Tensor:
        with scripted(decoder, [WORDS]):
            return generation.generate(decoder, [prompt], options, provide_image=provide_image)[0]

    def code_by_code() -> torch.Tensor:
        with scripted(decoder, [WORDS], code_by_code=provide_image):
            return generation.generate(decoder, [prompt], options)[0]

    made: list[torch.Tensor] = [whole()]
    new = len(made[0]) - len(prompt)
    slow, slow_memory = peak_of(lambda: made.append(code_by_code()))
    fast, fast_memory = peak_of(lambda: made.append(whole()))
    same = all(torch.equal(ids, made[0]) for ids in made)
    print(f"{IMAGES} provided images of {CODES} codes, {new} tokens, all the same: {same}")
    print(f"code by code        {new / slow:8.1f} tokens/s, peak +{slow_memory:.0f} MB")
    print(f"image by image      {new / fast:8.1f} tokens/s, peak +{fast_memory:.0f} MB; ratio {slow / fast:.2f}")


def batch_speed(decoder: SmallInterleaved, size: int = 8) -> None:
    """Tokens a second of a batch whose samples are provided images at moments of their own and end at their own."""
    prompts, provide_image = [a_prompt(decoder, index) for index in range(size)], crop_of(decoder)
    words = [[(5 * index + 7 * image) % 23 + 12 for image in range(IMAGES + 1)] for index in range(size)]
    options = replace(SETTINGS, guidance="none")

    def together() -> list[torch.Tensor]:
        with scripted(decoder, words):
            return generation.generate(decoder, prompts, options, provide_image=provide_image)

    def one_by_one() -> list[torch.Tensor]:
        results = []
        for prompt, own in zip(prompts, words, strict=True):
            with scripted(decoder, [own]):
                results += generation.generate(decoder, [prompt], options, provide_image=provide_image)
        return results

    made: list[list[torch.Tensor]] = [together()]
    new = sum(len(ids) - len(prompt) for ids, prompt in zip(made[0], prompts, strict=True))
    slow, slow_memory = peak_of(lambda: made.append(one_by_one()))
    fast, fast_memory = peak_of(lambda: made.append(together()))
    same = all(torch.equal(a, b) for results in made for a, b in zip(results, made[0], strict=True))
    print(f"{size} samples with {IMAGES} provided images each, {new} tokens, all the same: {same}")
    print(f"one by one          {new / slow:8.1f} tokens/s, peak +{slow_memory:.0f} MB")
    print(f"in one batch        {new / fast:8.1f} tokens/s, peak +{fast_memory:.0f} MB; ratio {slow / fast:.2f}")


def generation_speed() -> None:
    """All ratios, each from two ways over the same tokens in one run."""
    decoder = model()
    provided_image_speed(decoder)
    batch_speed(decoder)
    cache_speed(decoder)


if __name__ == "__main__":
    generation_speed()
