"""chest_drr as few-shot classification tasks: portable radiographs with one finding each, of known severity and place."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

import torch

from zoo.data.base import ExampleImage, LoaderSpec
from zoo.data.chest_drr.datasets.rendered import example_cases
from zoo.data.chest_drr.datasets.reports import as_tensor
from zoo.data.chest_drr.rendering.build import CaseSeries, build_series
from zoo.data.chest_drr.rendering.cases import CaseSpec
from zoo.data.chest_drr.rendering.scans import describe_source
from zoo.data.chest_drr.rendering.spec import ImageSpec
from zoo.data.chest_drr.rendering.volume import LICENSE, LIMITATIONS, SOURCE_TEXT
from zoo.data.chest_drr.text.wording import read_wording
from zoo.data.classification.balance import ClassLoaderSpec
from zoo.data.classification.base import Classes, ClassificationData, Item
from zoo.data.io.crops import crop
from zoo.ranges import PositiveInt
from zoo.registry import Unpacked, register

Task = Literal["findings", "side", "lobe", "severity", "normal", "close_up"]
TASKS: tuple[Task, ...] = get_args(Task)
"""The tasks of ``tasks.yaml``."""

_OFFSET = 1_000_000
_SIDES = ("left", "right")


@register("dataset", "chest_drr_findings")
class ChestDrrFindings(ClassificationData):
    """One of six tasks: the finding, its side, its lobe, its severity, whether there is any, or a close-up of a lung."""

    is_rendered = True
    license: str = LICENSE
    source: str = SOURCE_TEXT
    limitations: str = LIMITATIONS
    template: str = "a chest radiograph showing {}."

    def __init__(
        self,
        shots: PositiveInt | None = 16,
        classes: Classes = "all",
        augment: bool = False,
        task: Task = "findings",
        render: Annotated[ImageSpec, Unpacked] = ImageSpec(style="portable", image_size=128),
        loader: Annotated[LoaderSpec, Unpacked] = ClassLoaderSpec(),
    ) -> None:
        """Set the protocol.

        Args:
            shots: training images per class; all if None.
            classes: all, or the base or novel half.
            augment: whether training images are shifted, rotated and scaled a little.
            task: what the classes are: "findings", the finding with its severity; "side" and "lobe", where it is; "severity",
                how enlarged the heart is; "normal", whether there is any; "close_up", the finding on a close-up of one lung.
            render: how radiographs are rendered.
            loader: how batches are loaded; its seed samples the shots, and the images do not depend on it.
        """
        self._task: dict[str, Any] = read_wording("tasks")[task]
        super().__init__(list(self._task["classes"]), shots, classes, None, augment, loader)
        self.render = render
        self.template = self._task.get("template", type(self).template)
        contents = [_simplify(alternatives) for alternatives in self._task["classes"].values()]
        self._side = render.image_size
        # A close-up has the resolution of a film of twice the size.
        size = 2 * self._side if "crop" in self._task else self._side
        seed, scans = self._task["seed"], render.divided_scans
        self.spec = CaseSpec(style=render.style, image_size=size, seed=seed, classes=contents, scans=scans)
        vars(self).update(describe_source(scans) if scans else {})
        self._series: dict[str, CaseSeries] = {}

    @property
    def class_texts(self) -> Mapping[str, Sequence[str]]:
        """Descriptions of each class."""
        texts = read_wording("classes")
        return {name: texts[name] for name in self.all_class_names}

    def read_items(self) -> dict[str, list[Item]]:
        """Render what the cache lacks; the class of a case is its index modulo the number of classes."""
        classes = len(self.all_class_names)
        counts = {split: per_class * classes for split, per_class in self._task["images"].items()}
        self._series = build_series(self.spec, counts, self.render.render_workers)
        return {
            split: [Item(number * _OFFSET + index, index % classes) for index in range(count)]
            for number, (split, count) in enumerate(counts.items())
        }

    def example_images(self, count: int) -> list[ExampleImage]:
        """The first test cases, with their findings outlined."""
        return example_cases(self.spec, count, self.render.render_workers)

    def read(self, source: int) -> torch.Tensor:
        """An image by its source number: a million for each split before its own, plus the index in it."""
        series, index = self._series[list(self._task["images"])[source // _OFFSET]], source % _OFFSET
        image = as_tensor(series.image(index))
        if "crop" not in self._task:
            return image
        record = series.record(index)
        # A film without a finding shows either lung in turn.
        side = next((finding["side"] for finding in record["findings"]), _SIDES[index // len(self.all_class_names) % 2])
        return crop(image, record["regions"][f"{side} {self._task['crop']}"]["box"], self._side)


def _simplify(alternatives: list[list[str]]) -> Sequence[str] | Sequence[Sequence[str]] | None:
    """One alternative stands for itself, so that the films of a class that has one keep their place in the cache."""
    if len(alternatives) > 1:
        return [tuple(finding) for finding in alternatives]
    return tuple(alternatives[0]) if alternatives else None
