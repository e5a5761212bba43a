"""What the datasets of chest_drr share: entries for their cards, and cases rendered in three splits."""

from collections.abc import Sequence
from typing import Any

from pycocotools import mask as coco

from zoo.data.base import ExampleImage
from zoo.data.chest_drr.rendering.build import CaseSeries, build_series
from zoo.data.chest_drr.rendering.cases import CaseSpec
from zoo.data.chest_drr.rendering.findings import SEVERITIES
from zoo.data.chest_drr.rendering.scans import describe_source
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.rendering.volume import LICENSE, LIMITATIONS, SOURCE_TEXT
from zoo.data.chest_drr.text.labels import LABELER, VOCABULARY


class RenderedCases:
    """Base of the rendered datasets, beside :class:`~zoo.data.base.ZooData`."""

    license: str = LICENSE
    source: str = SOURCE_TEXT
    limitations: str = LIMITATIONS
    is_rendered = True

    def configure_rendering(
        self, render: RenderSpec, findings: Sequence[str] = tuple(SEVERITIES), max_findings: int = 3
    ) -> None:
        """Set what is rendered: the findings that may occur, and the most in one case."""
        kinds = {finding: list(SEVERITIES[finding]) for finding in findings}
        self.render = render
        scans = render.divided_scans
        self.spec = CaseSpec(
            style=render.style, image_size=render.image_size, kinds=kinds, at_most=max_findings, scans=scans
        )
        vars(self).update(describe_source(scans) if scans else {})
        self.counts = render.counts

    def series(self, split: str) -> CaseSeries:
        """The cases of a split; those that the cache lacks are rendered."""
        return build_series(self.spec, {split: self.counts[split]}, self.render.render_workers)[split]

    def metadata(self) -> dict[str, Any]:
        """The findings and regions, their names, and the rules that extract findings from text."""
        names = {"label_names": list(VOCABULARY.label_names), "region_names": list(VOCABULARY.regions)}
        return {"vocabulary": VOCABULARY, "labeler": LABELER, **names}

    def example_images(self, count: int) -> list[ExampleImage]:
        """The first test cases, with their findings outlined."""
        return example_cases(self.spec, count, self.render.render_workers)


def example_cases(spec: CaseSpec, count: int, num_workers: int | None = None) -> list[ExampleImage]:
    """The first test cases of a series, titled with their findings, which are outlined."""
    series = build_series(spec, {"test": count}, num_workers)["test"]
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
