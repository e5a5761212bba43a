"""What the data sets of chest_drr share: facts for their cards, and cases that are rendered in three splits."""

from collections.abc import Sequence
from typing import Any, ClassVar

from pycocotools import mask as coco

from zoo.data.base import ExampleImage
from zoo.data.chest_drr.rendering.build import CaseSeries, build_series
from zoo.data.chest_drr.rendering.cases import CaseSpec
from zoo.data.chest_drr.rendering.findings import SEVERITIES
from zoo.data.chest_drr.rendering.volume import LICENSE, LIMITATIONS, SOURCE_TEXT
from zoo.data.chest_drr.text.labels import LABELER, VOCABULARY


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

    def metadata(self) -> dict[str, Any]:
        """The findings, the names of everything that has a mask, and the rules that extract findings from text."""
        return {"vocabulary": VOCABULARY, "target_names": list(VOCABULARY.target_names), "labeler": LABELER}

    def example_images(self, count: int) -> list[ExampleImage]:
        """The first test cases, with their findings outlined."""
        return example_cases(self.spec, count, self.build_workers)


def example_cases(spec: CaseSpec, count: int, workers: int | None = None) -> list[ExampleImage]:
    """The first test cases of a series, titled with their findings, which are outlined."""
    series = build_series(spec, {"test": count}, workers)["test"]
    examples = []
    for index in range(count):
        findings = series.record(index)["findings"]
        titles = [
            " ".join(filter(None, (finding["severity"], finding["lobe"] or finding["side"], finding["kind"])))
            for finding in findings
        ]
        masks = [coco.decode(finding["mask"]).astype(bool) for finding in findings]
        examples.append(ExampleImage(series.image(index), "\n".join(titles) or "no finding", masks))
    return examples
