"""Rare classes: how often their images are drawn, and how much they count in a loss. All weights are inverse frequencies."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from zoo.data.base import LoaderSpec

Sampling = Literal["shuffle", "balanced"]
ClassWeights = Literal["balanced"]


@dataclass(frozen=True, kw_only=True)
class ClassLoaderSpec(LoaderSpec):
    """How batches of labelled images are loaded.

    Attributes:
        sampling: "shuffle" goes through the training images once an epoch; "balanced" draws as many of them with replacement, each
            class as often as any other. Of images with several labels the rarest one counts, and having none is a class too.
    """

    sampling: Sampling = "shuffle"


def is_balanced(loader: LoaderSpec) -> bool:
    """Whether images are drawn by class."""
    return isinstance(loader, ClassLoaderSpec) and loader.sampling == "balanced"


def sample_weights(labels: Sequence[int]) -> torch.Tensor:
    """The share (samples) of all draws that each sample has, so that each label has the same."""
    counts = Counter(labels)
    return torch.tensor([1 / (len(counts) * counts[label]) for label in labels], dtype=torch.float64)


def rarest_labels(targets: torch.Tensor) -> list[int]:
    """The label of each image that the fewest images have; -1 for an image that has none.

    Args:
        targets: (images, labels) of 1, 0 and NaN.
    """
    present = targets == 1
    order = present.sum(dim=0).argsort(stable=True)
    return [int(order[row[order]][0]) if row.any() else -1 for row in present]


def balanced_class_weights(counts: torch.Tensor) -> torch.Tensor:
    """Weights (classes) of a cross-entropy: 1 / count, with mean 1; a class without an image counts as one with one."""
    weights = 1 / counts.clamp(min=1).double()
    return (weights / weights.mean()).float()


def positive_weights(targets: torch.Tensor) -> torch.Tensor:
    """Weights (labels) of the positive targets of a binary cross-entropy: negatives / positives; 1 where one of them is lacking.

    Args:
        targets: (images, labels) of 1, 0 and NaN, which does not count.
    """
    positives, negatives = (targets == 1).sum(dim=0), (targets == 0).sum(dim=0)
    both = (positives > 0) & (negatives > 0)
    return torch.where(both, negatives / positives.clamp(min=1), torch.ones(targets.shape[1]))
