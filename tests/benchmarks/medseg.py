"""Reasoning segmentation: the embedding cache in training, and masks from cached generation."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from tests.benchmarks.interleaved import peak_of
from tests.tiny_models import byte_tokenizer
from zoo.data.conversations.records import SEG, Turn
from zoo.embedding_cache import EmbeddingCache
from zoo.encoders.clip import SmallClip
from zoo.encoders.vision import ClipVision
from zoo.heads.pixel_grounding import PixelGrounding
from zoo.heads.sam_grounding import SamGrounding
from zoo.heads.unet_grounding import UnetGrounding
from zoo.language.causal_lm import LanguageModel
from zoo.language.global_context import CausalContext
from zoo.methods.medseg_r import MedSegR

WORDS = 48


def method(head: Callable[..., PixelGrounding] | None = None) -> MedSegR:
    """SAM ViT-B's size, the zoo's small CLIP tower, and a language model of SmolLM2's width with 12 layers; random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=12,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    language = LanguageModel(LlamaForCausalLM(config), tokenizer)
    clip = SmallClip(image_size=128, patch_size=16, width=192, layers=12)
    made = MedSegR(CausalContext(ClipVision(clip), language), head or partial(SamGrounding, size="base"))
    made.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    return made


def training_step(model: MedSegR) -> None:
    """A step whose image embeddings are computed, against one that finds them on disk."""
    image = torch.rand(1, 256, 256)
    mask = torch.zeros(1, 256, 256)
    mask[:, 60:140, 40:120] = 1
    turn = Turn("Which region would explain the blunted angle?", f"The left pleural effusion {SEG}.", kind="implicit")
    batch = {"image": [image], "image_hash": ["a" * 64], "turns": [(turn,)], "masks": [mask]}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model.training_step(batch, 0).backward()
        optimizer.step()

    model.train()
    without, memory_without = peak_of(step)
    with tempfile.TemporaryDirectory() as folder:
        model._caches = {name: EmbeddingCache(name * 16, folder=Path(folder)) for name in ("context", "grounding")}
        step()
        found, memory_found = min(peak_of(step) for _ in range(3))
    model._caches = None
    print(f"training step, SAM ViT-B at 1024 pixels, batch 1, {torch.get_num_threads()} threads")
    print(f"image encoder run    {without:8.2f} s, peak +{memory_without:.0f} MB")
    print(f"embedding from disk  {found:8.2f} s, peak +{memory_found:.0f} MB; ratio {without / found:.1f}")


def generation(model: MedSegR) -> None:
    """An answer whose mask tokens are kept on the way, against generating and then running the whole sequence again."""
    model.eval()
    image = torch.rand(1, 256, 256)
    context, seen = model.context, model.encode_images([image], model.encode_mask_features([image]))
    prompt = context.tokenize([("Which region would explain the blunted angle?", None)], len(seen[0]))[0]
    script: list[int] = []

    def likeliest(state: torch.Tensor) -> torch.Tensor:
        context.logits(state)
        return torch.tensor([script.pop(0)])

    context.next_token_ids = likeliest  # type: ignore[method-assign]

    def answer() -> torch.Tensor:
        script[:] = [*[7] * WORDS, context.seg_token_id, 8, context.eos_token_id]
        return context.generate([prompt], seen)[0].seg_hidden_states

    @torch.no_grad()
    def twice() -> torch.Tensor:
        """Every token from the whole sequence before it, without a cache, then the state of [SEG]."""
        ids = list(prompt)
        for token in (*[7] * WORDS, context.seg_token_id, 8, context.eos_token_id):
            row = torch.tensor([ids])
            context.logits(context.hidden_states(row, seen)[:, -1])
            ids.append(token)
        return context.hidden_states(torch.tensor([ids]), seen)

    @torch.no_grad()
    def once_more() -> torch.Tensor:
        """Cached generation, and then one pass over the whole sequence for the state of [SEG]."""
        answer()
        ids = torch.tensor([[*prompt, *[7] * WORDS, context.seg_token_id, 8]])
        return context.hidden_states(ids, seen)

    ways = {"states kept": answer, "cached, one pass more": once_more, "whole sequence each time": twice}
    measured = {name: min(peak_of(way) for _ in range(3)) for name, way in ways.items()}
    base = measured["states kept"][0]
    print(f"an answer of {WORDS + 2} tokens with one mask after {len(prompt)} tokens of image and question")
    for name, (taken, memory) in measured.items():
        print(f"{name:26}{taken:8.2f} s, peak +{memory:.0f} MB; {taken / base:.2f} of the first")


def evaluation_in_batches(count: int = 16) -> None:
    """Evaluation of conversations in one batch against one by one, each answer of the same length with one mask."""
    model = method(UnetGrounding).eval()
    context, place = model.context, [0]

    def likeliest(state: torch.Tensor) -> torch.Tensor:
        context.logits(state)
        script = [*[7] * WORDS, context.seg_token_id, context.eos_token_id]
        place[0] = (place[0] + 1) % len(script)
        return torch.full((len(state),), script[place[0] - 1])

    context.next_token_ids = likeliest  # type: ignore[method-assign]
    turn = Turn("Which region would explain the blunted angle?", f"The left pleural effusion {SEG}.", kind="implicit")
    samples = [
        {"image": [torch.rand(1, 256, 256)], "turns": [(turn,)], "masks": [torch.ones(1, 256, 256)]}
        for _ in range(count)
    ]
    whole = {key: [sample[key][0] for sample in samples] for key in samples[0]}

    @torch.no_grad()
    def one_by_one() -> None:
        for sample in samples:
            model.evaluation_step(sample)

    @torch.no_grad()
    def together() -> None:
        model.evaluation_step(whole)

    ways = {f"a batch of {count}": together, "one by one": one_by_one}
    measured = {name: min(peak_of(way) for _ in range(3)) for name, way in ways.items()}
    base = next(iter(measured.values()))[0]
    print(f"evaluation of {count} questions, answers of {WORDS + 1} tokens with one mask, U-Net head")
    for name, (taken, memory) in measured.items():
        print(f"{name:26}{taken:8.2f} s, peak +{memory:.0f} MB; {taken / base:.2f} of the first")


def reasoning_segmentation() -> None:
    """All of them."""
    start = time.perf_counter()
    model = method()
    training_step(model)
    generation(model)
    evaluation_in_batches()
    print(f"(took {time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    reasoning_segmentation()
