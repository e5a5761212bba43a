"""Images with labels that do not exclude one another, and what becomes of uncertain and unstated ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.utils.data import Dataset

from zoo.data.base import Sample
from zoo.data.classification.preparation import ImagePreparation
from zoo.errors import ArgumentError

Uncertain = Literal["ignore", "absent", "present"]
"""What an uncertain label counts as: nothing, absent or present (U-Ignore, U-Zeros and U-Ones of CheXpert, arXiv 1901.07031)."""
Unstated = Literal["absent", "ignore"]
"""What a label that is not stated counts as."""
_UNCERTAIN = -1.0


@dataclass(frozen=True)
class LabelPolicy:
    """How labels become targets.

    Attributes:
        uncertain: what -1 counts as.
        unstated: what a label counts as that an image does not have.
    """

    uncertain: Uncertain = "ignore"
    unstated: Unstated = "absent"

    def targets(self, labels: Mapping[str, float], names: Sequence[str]) -> torch.Tensor:
        """Targets (names) of 1, 0, and NaN for what is ignored."""
        values = {"ignore": float("nan"), "absent": 0.0, "present": 1.0}
        row = [labels.get(name, values[self.unstated]) for name in names]
        return torch.tensor([values[self.uncertain] if value == _UNCERTAIN else value for value in row])


class MultiLabelImages(Dataset[Sample]):
    """Images with targets, read at access and prepared."""

    sample_weights: torch.Tensor | None = None
    """How often each image is drawn for training; all alike if None."""

    def __init__(
        self,
        sources: Sequence[Any],
        targets: torch.Tensor,
        read: Callable[[Any], torch.Tensor],
        preparation: ImagePreparation,
    ) -> None:
        """Hold sources and targets (images, labels)."""
        self.sources, self.targets, self._read, self.preparation = list(sources), targets, read, preparation

    def __len__(self) -> int:
        """Number of images."""
        return len(self.sources)

    def __getitem__(self, index: int) -> Sample:
        """``image`` (3, height, width) in [0, 1], ``labels`` (labels) of 1, 0 and NaN, and ``source`` as text."""
        image = self.preparation(self._read(self.sources[index]))
        return {"image": image, "labels": self.targets[index], "source": str(self.sources[index])}


def check_label_names(names: Sequence[str], stated: Sequence[str]) -> list[str]:
    """The names in use: ``names``, or all stated ones if they are empty.

    Raises:
        ArgumentError: a name is not stated by any image, or there is none.
    """
    chosen = list(names or stated)
    if unknown := set(chosen) - set(stated):
        raise ArgumentError(f"no image has the label {', '.join(sorted(unknown))}; there are: {', '.join(stated)}")
    if not chosen:
        raise ArgumentError("no image has a label")
    return chosen
