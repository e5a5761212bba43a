"""How the datasets of chest_drr have their radiographs rendered."""

from dataclasses import dataclass
from typing import Literal

from zoo.data.chest_drr.rendering.scans import Scan, divide_by_patient
from zoo.errors import ArgumentError
from zoo.ranges import PixelSide, PositiveInt, PositiveProcesses

Style = Literal["standard", "portable"]
"""``standard`` is PA, upright and centred; ``portable`` is AP at one metre, tilted, flatter and noisier."""

MIN_HELD_OUT = 64
"""Least number of cases in the validation split and in the test split."""


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """How a radiograph is rendered. In a recipe, the fields are arguments of the dataset.

    Attributes:
        image_size: side of the square radiograph in pixels.
        style: of the radiograph.
        render_workers: rendering processes; all cores if None.
        ct: NIfTI file of a chest CT to render from, with ``labels``; the packaged CT if None.
        labels: NIfTI file of its TotalSegmentator label map.
        scans: several CTs, each with its label map, patient and split, in place of ``ct`` and ``labels``.

    Raises:
        ArgumentError: ``ct``, ``labels`` and ``scans`` do not go together, or their patients cannot be divided into splits.
    """

    image_size: PixelSide = 256
    style: Style = "standard"
    render_workers: PositiveProcesses | None = None
    ct: str | None = None
    labels: str | None = None
    scans: list[Scan] | None = None

    def __post_init__(self) -> None:
        """Check the scans."""
        if (self.ct is None) != (self.labels is None):
            raise ArgumentError("ct and labels belong together: a chest CT and its label map")
        if self.ct is not None and self.scans is not None:
            raise ArgumentError("give ct and labels, or scans, not both")
        if self.scans == []:
            raise ArgumentError("scans is empty; leave it out for the packaged CT")
        _ = self.divided_scans

    @property
    def divided_scans(self) -> tuple[Scan, ...] | None:
        """The user's scans with a split each; None for the packaged CT."""
        if self.ct is not None and self.labels is not None:
            return divide_by_patient([Scan(self.ct, self.labels)])
        if self.scans is None:
            return None
        return divide_by_patient([scan if isinstance(scan, Scan) else Scan(**scan) for scan in self.scans])


@dataclass(frozen=True, kw_only=True)
class RenderSpec(ImageSpec):
    """How radiographs are rendered, and how many. In a recipe, the fields are arguments of the dataset.

    Attributes:
        size: training cases.
        held_out: cases of the validation split, and of the test split; a tenth of ``size``, at least 64, if None.
        image_size: side of the square radiograph in pixels.
        style: of the radiograph.
        render_workers: rendering processes; all cores if None.
        ct: NIfTI file of a chest CT to render from, with ``labels``; the packaged CT if None.
        labels: NIfTI file of its TotalSegmentator label map.
        scans: several CTs, each with its label map, patient and split, in place of ``ct`` and ``labels``.

    Raises:
        ArgumentError: there is no training case, or no case held out, or as for :class:`ImageSpec`.
    """

    size: PositiveInt = 2000
    held_out: PositiveInt | None = None

    def __post_init__(self) -> None:
        """Check the scans and the number of cases."""
        super().__post_init__()
        if self.size < 1:
            raise ArgumentError(f"size is {self.size}; at least one training case must be rendered")
        if self.held_out is not None and self.held_out < 1:
            raise ArgumentError(f"held_out is {self.held_out}; at least one case must be held out")

    @property
    def counts(self) -> dict[str, int]:
        """Cases of each split."""
        held_out = max(self.size // 10, MIN_HELD_OUT) if self.held_out is None else self.held_out
        return {"train": self.size, "val": held_out, "test": held_out}
