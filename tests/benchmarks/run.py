"""All benchmarks, as ratios taken in one run: ``make bench`` or ``python -m tests.benchmarks.run``."""

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch.nn import functional

from tests.benchmarks.decoding import decoding
from tests.benchmarks.interleaved import generation_speed
from tests.benchmarks.many_classes import many_classes
from tests.benchmarks.medseg import reasoning_segmentation
from zoo.adapters.coop import CoOp
from zoo.adapters.maple import MaPLe
from zoo.adapters.nearl import NearlAdapter
from zoo.encoders.clip import ClipEncoder, OpenClip
from zoo.methods.clip_classification import ClipClassification
from zoo.precision import float32_attention

NAMES = [f"finding number {word}" for word in "one two three four five six seven eight nine ten".split()]
TEMPLATE = "a medical image of {}."
BATCH, STEPS = 4, 5


class FullLength:
    """Stands for a text tower that keeps all 77 positions."""

    def __init__(self, text):
        self._text = text

    def __getattr__(self, name):
        return getattr(self._text, name)

    def trim(self, ids):
        return ids


def step_time(method: ClipClassification, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], float]:
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1e-4)
    method.train()

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        functional.cross_entropy(method(images), labels).backward()
        optimizer.step()
        return time.perf_counter() - start

    return step


def methods(clip: ClipEncoder) -> dict[str, ClipClassification]:
    adapters = {
        "CoOp": CoOp,
        "MaPLe": MaPLe,
        "NEARL-CLIP, instance": partial(NearlAdapter, interaction="instance"),
        "NEARL-CLIP, prototype": partial(NearlAdapter, interaction="prototype"),
    }
    return {name: ClipClassification(clip, adapter, NAMES, TEMPLATE) for name, adapter in adapters.items()}


def interleaved_median(steps: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median of each, taken turn by turn so that a busy machine slows all alike; one unmeasured round first."""
    times = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            taken = step()
            if turn:
                times[name].append(taken)
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}


def training_steps() -> None:
    """Step time of NEARL-CLIP beside MaPLe and CoOp on ViT-B/16, batch 4, 10 classes, trimmed and with 77 positions."""
    torch.manual_seed(0)
    clip = OpenClip("ViT-B-16")
    images, labels = torch.rand(BATCH, 3, 224, 224), torch.arange(BATCH)
    trimmed = {name: step_time(method, images, labels) for name, method in methods(clip).items()}
    short = clip.text
    clip.text = FullLength(short)
    whole = {f"{name}, 77 positions": method for name, method in methods(clip).items() if "instance" not in name}
    full = {name: step_time(method, images, labels) for name, method in whole.items()}
    medians = interleaved_median({**trimmed, **full}, STEPS)
    print(f"ViT-B/16, batch {BATCH}, {len(NAMES)} classes, {torch.get_num_threads()} threads, median of {STEPS} steps")
    print(f"{'':38}{'ms a step':>10}{'to MaPLe':>10}{'to MaPLe, 77':>14}")
    for name, median in medians.items():
        against, full_length = medians["MaPLe"], medians["MaPLe, 77 positions"]
        print(f"{name:38}{median * 1e3:>10.0f}{median / against:>10.2f}{median / full_length:>14.2f}")


def half_precision() -> None:
    """Step time of NEARL-CLIP on ViT-B/16 in bfloat16 to that in float32, with attention in either."""
    torch.manual_seed(0)
    nearl = methods(OpenClip("ViT-B-16"))["NEARL-CLIP, instance"]
    step = step_time(nearl, torch.rand(BATCH, 3, 224, 224), torch.arange(BATCH))

    def in_bfloat16(attention: AbstractContextManager[None]) -> float:
        with attention, torch.autocast("cpu", dtype=torch.bfloat16):
            return step()

    steps = {
        "float32": step,
        "bfloat16": lambda: in_bfloat16(nullcontext()),
        "bfloat16, attention in float32": lambda: in_bfloat16(float32_attention()),
    }
    medians = interleaved_median(steps, STEPS)
    for name, median in medians.items():
        print(f"{name:38}{median * 1e3:>10.0f}{median / medians['float32']:>10.2f}")


def import_times() -> None:
    """Seconds to import the zoo beside timm and open_clip, and for ``zoo list``."""

    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    bare = min(seconds("pass") for _ in range(3))
    listing = "import sys; sys.argv = ['zoo', 'list']; from zoo.cli.app import app; app()"
    for name, code in (
        ("import zoo", "import zoo"),
        ("zoo list", listing),
        ("import timm", "import timm"),
        ("import open_clip", "import open_clip"),
    ):
        print(f"{name:20}{min(seconds(code) for _ in range(3)) - bare:8.2f} s")


if __name__ == "__main__":
    import_times()
    decoding()
    training_steps()
    half_precision()
    many_classes()
    generation_speed()
    reasoning_segmentation()
