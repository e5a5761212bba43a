"""Few shots of each class, sampled by a seed."""

import random
from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

import numpy as np

ShotSampling = Literal["independent", "dassl"]
"""How shots are sampled. "independent": each class and split by itself, so that 16 shots contain the 4 of the same seed. "dassl":
as by CoOp's framework Dassl, with Python's ``random.sample``, class after class in the order of the file, the classes of both
halves together; with the same split file and seed, the shots are those of the authors' runs."""
MOST_VAL_SHOTS = 4
"""Validation images of a class, at most, as in CoOp's protocol."""


class Labelled(Protocol):
    """What has a label."""

    @property
    def label(self) -> int:
        """The class."""


Shot = TypeVar("Shot", bound=Labelled)


def sample_independently(items: Sequence[Shot], shots: int, classes: int, seed: int, stream: int) -> list[Shot]:
    """K items of each class, or all where there are fewer, sampled by (seed, stream, class)."""
    sampled: list[Shot] = []
    for label in range(classes):
        candidates = [item for item in items if item.label == label]
        order = np.random.default_rng([seed, stream, label]).permutation(len(candidates))
        sampled += [candidates[position] for position in order[:shots]]
    return sampled


def sample_as_dassl(splits: Sequence[Sequence[Shot]], shots: Sequence[int], seed: int) -> list[list[Shot]]:
    """Items of each class of each split, or all where there are fewer, from one stream of random numbers.

    Args:
        splits: items in the order of their file.
        shots: K of each split.
        seed: of the stream.
    """
    rng = random.Random(seed)
    sampled = []
    for items, count in zip(splits, shots, strict=True):
        by_label: dict[int, list[Shot]] = {}
        for item in items:
            by_label.setdefault(item.label, []).append(item)
        drawn = [rng.sample(of_class, count) if len(of_class) >= count else of_class for of_class in by_label.values()]
        sampled.append([item for of_class in drawn for item in of_class])
    return sampled
