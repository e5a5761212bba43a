"""SLAKE (Liu et al., arXiv 2102.09542): questions and answers about images, with boxes of organs and findings, and label maps."""

from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

from zoo.data.annotations.base import AnnotatedImage, AnnotationError, AnnotationSource, Problems, Region
from zoo.data.annotations.masks import MaskFile
from zoo.data.classification.base import read_json
from zoo.registry import register

_FILES = {"train": "train.json", "val": "validation.json", "test": "test.json"}


@register("annotation_source", "slake")
class Slake(AnnotationSource):
    """Radiographs, CT and MR slices with questions; regions are those of ``mask.png`` where ``mask.txt`` names its values, else boxes."""

    license = "CC BY 4.0"
    source = "SLAKE, https://www.med-vqa.com/slake/"

    def __init__(self, folder: str, language: Literal["en", "zh", "all"] = "en") -> None:
        """Set the folder.

        Args:
            folder: with ``train.json``, ``validation.json``, ``test.json``, and ``imgs/xmlabN/`` (or ``xmlabN/``); ``mask.txt``, if it is there, has
                a line ``VALUE:NAME`` for each value of the label maps.
            language: of the questions: English, Chinese, or both.
        """
        self.folder, self.language = Path(folder), language

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`."""
        root = self.folder / "imgs" if (self.folder / "imgs").is_dir() else self.folder
        values: dict[int, str] = {}
        with problems.at(self.folder / "mask.txt"):
            values = self._values()
        images: list[AnnotatedImage] = []
        for split, name in _FILES.items():
            file, questions = self.folder / name, defaultdict[str, list[tuple[str, str]]](list)
            with problems.at(file):
                for number, item in enumerate(read_json(file)):
                    with problems.at(f"{file}: question {number}"):
                        listed = questions[_inside(item["img_name"])]
                        if self.language in ("all", item["q_lang"]):
                            listed.append((str(item["question"]), str(item["answer"])))
            for image, pairs in questions.items():
                with problems.at(root / image):
                    regions = self._regions((root / image).parent, values)
                    images.append(AnnotatedImage(root / image, split, regions=regions, questions=tuple(pairs)))
        return images

    def _values(self) -> dict[int, str]:
        file = self.folder / "mask.txt"
        if not file.is_file():
            return {}
        lines = [line.split(":") for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {int(value): name.strip() for value, name in lines if int(value) > 0}

    def _regions(self, folder: Path, values: dict[int, str]) -> tuple[Region, ...]:
        mask, detections = folder / "mask.png", folder / "detection.json"
        if values and mask.is_file():
            return tuple(Region(name.lower(), mask=MaskFile(mask, value)) for value, name in values.items())
        if not detections.is_file():
            return ()
        boxes = [pair for item in read_json(detections) for pair in item.items()]
        return tuple(_detected(name, box) for name, box in boxes)


def _detected(name: str, box: Any) -> Region:
    left, top, width, height = (float(value) for value in box)
    if not (width > 0 and height > 0):
        raise AnnotationError(f"detection.json: the box of {name} has a width of {width} and a height of {height}")
    return Region(name.lower(), boxes=((left, top, left + width, top + height),))


def _inside(name: Any) -> str:
    path = Path(str(name))
    if path.is_absolute() or ".." in path.parts:
        raise AnnotationError(f"'{path}' leaves the image folder")
    return str(path)
