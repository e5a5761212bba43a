"""NEARL at 10 and at 200 classes beside MaPLe: CPU time and peak memory of a training step, each case in a process of its own.

``python -m tests.benchmarks.many_classes`` measures all cases; with a case and a number of classes it measures one.
"""

import json
import resource
import subprocess
import sys
import time
from functools import partial

import torch
from torch.nn import functional

from zoo.adapters.maple import MaPLe
from zoo.adapters.nearl import NearlAdapter
from zoo.encoders.clip import OpenClip
from zoo.methods.clip_classification import ClipClassification

BATCH, CANDIDATES = 4, 10
LIKELIEST = f"instance, {CANDIDATES} candidates"
ALL = "instance, all classes"
CASES = {
    "MaPLe": MaPLe,
    "MaPLe, 77 positions": MaPLe,
    "instance": partial(NearlAdapter, interaction="instance"),
    LIKELIEST: partial(NearlAdapter, interaction="instance", candidates=CANDIDATES),
    ALL: partial(NearlAdapter, interaction="instance", candidates=200),
    "prototype": partial(NearlAdapter, interaction="prototype"),
}
"""Adapters by case; with 77 positions the prompts are as long as the authors of MaPLe have them."""
PLAN = {
    10: ("MaPLe, 77 positions", {"MaPLe": (), "instance": (1.0,), "prototype": (0.85,)}),
    200: ("MaPLe", {"instance": (1.5, 1.5), LIKELIEST: (1.5, 1.5), "prototype": (1.5, 1.5), ALL: (1.5, 1.5)}),
}
"""For each number of classes the case that others are compared with, and those with the aims: most of its time, and of its memory."""


def step_cost(case: str, classes: int) -> dict[str, float]:
    """CPU seconds of a step on one thread, and the peak of resident memory above that before the first step, in bytes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = [f"finding number {index}" for index in range(classes)]
    clip = OpenClip("ViT-B-16")
    if case.endswith("77 positions"):
        clip.text.trim = lambda input_ids: input_ids  # type: ignore[method-assign]
    method = ClipClassification(clip, CASES[case], names, "a medical image of {}.").train()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1e-4)
    images, labels = torch.rand(BATCH, 3, 224, 224), torch.arange(BATCH)
    before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(3 if classes <= 10 else 2):  # the first is not measured
        start = time.process_time()
        optimizer.zero_grad()
        functional.cross_entropy(method(images), labels).backward()
        optimizer.step()
        times.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": min(times[1:]), "bytes": (peak - before) * 1024}


def measured(case: str, classes: int) -> dict[str, float]:
    """:func:`step_cost` in a process of its own, whose memory nothing else has used."""
    command = [sys.executable, "-m", "tests.benchmarks.many_classes", case, str(classes)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    costs: dict[str, float] = json.loads(output.splitlines()[-1])
    return costs


def many_classes() -> None:
    """Every case with every number of classes, and whether the aims are met."""
    print(f"\nViT-B/16, random weights, batch {BATCH}, one thread; CPU seconds and peak memory of a training step")
    for classes, (reference, cases) in PLAN.items():
        base = measured(reference, classes)
        print(f"{classes} classes: {reference} {base['seconds']:.1f} s, {base['bytes'] / 1e9:.2f} GB")
        for case, aims in cases.items():
            cost = measured(case, classes)
            ratios = [cost[key] / base[key] for key in ("seconds", "bytes")]
            verdicts = ["met" if ratio <= aim else "missed" for ratio, aim in zip(ratios, aims, strict=False)]
            aimed = ", ".join(f"at most {aim}: {verdict}" for aim, verdict in zip(aims, verdicts, strict=True))
            print(f"    {case:26} time {ratios[0]:.2f}, memory {ratios[1]:.2f}  {aimed}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(step_cost(sys.argv[1], int(sys.argv[2]))))
    else:
        many_classes()
