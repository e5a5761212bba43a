"""What the data sets of chest_drr share: facts for their cards, and cases that are rendered in three splits."""

from collections.abc import Sequence
from typing import ClassVar

from zoo.data.chest_drr.rendering.build import CaseSeries, build_series
from zoo.data.chest_drr.rendering.cases import CaseSpec
from zoo.data.chest_drr.rendering.findings import SEVERITIES
from zoo.data.chest_drr.rendering.volume import LICENSE, LIMITATIONS, SOURCE_TEXT


class RenderedCases:
    """A part of a data set beside :class:`~zoo.data.base.ZooData`."""

    license: ClassVar[str] = LICENSE
    source: ClassVar[str] = SOURCE_TEXT
    limitations: ClassVar[str] = LIMITATIONS

    def choose(
        self,
        size: int,
        image_size: int,
        style: str,
        build_workers: int | None,
        findings: Sequence[str] = tuple(SEVERITIES),
        at_most: int = 3,
    ) -> None:
        """Say what is rendered: ``size`` training cases; a tenth as many (at least 64) each for validation and test."""
        kinds = {kind: list(SEVERITIES[kind]) for kind in findings}
        self.spec = CaseSpec(style=style, image_size=image_size, kinds=kinds, at_most=at_most)
        held_out = max(size // 10, 64)
        self.counts = {"train": size, "val": held_out, "test": held_out}
        self.build_workers = build_workers

    def series(self, split: str) -> CaseSeries:
        """The cases of a split; what the cache lacks is rendered."""
        return build_series(self.spec, {split: self.counts[split]}, self.build_workers)[split]
