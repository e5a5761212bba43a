"""IU X-ray (Demner-Fushman et al., JAMIA 2016) in the form of R2Gen (Chen et al., arXiv 2010.16056): reports of two views."""

from pathlib import Path
from typing import Any

from zoo.data.annotations.base import AnnotatedImage, AnnotationError, AnnotationSource, Problems
from zoo.data.classification.base import read_json
from zoo.data.io.tables import SPLITS
from zoo.registry import register


@register("annotation_source", "iu_xray")
class IuXray(AnnotationSource):
    """Studies with a report; the first of a study's films is its image, the others come with it."""

    license = "CC BY-NC-ND 4.0"
    source = "Open-i, Indiana University chest X-rays, split by R2Gen"

    def __init__(self, annotation: str, images: str) -> None:
        """Set the files.

        Args:
            annotation: ``annotation.json`` with train, val and test.
            images: folder that its paths, as ``CXR2384_IM-0942/0.png``, are relative to.
        """
        self.annotation, self.images = Path(annotation), Path(images)

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`."""
        images: list[AnnotatedImage] = []
        with problems.at(self.annotation):
            content = read_json(self.annotation)
            for split in SPLITS:
                for number, case in enumerate(content[split]):
                    with problems.at(f"{self.annotation}: {split}[{number}]"):
                        images.append(self._study(case, split))
        return images

    def _study(self, case: dict[str, Any], split: str) -> AnnotatedImage:
        report, paths = " ".join(str(case["report"]).split()), [Path(str(path)) for path in case["image_path"]]
        if not report or not paths:
            raise AnnotationError("has no report or no image")
        if any(path.is_absolute() or ".." in path.parts for path in paths):
            raise AnnotationError(f"{paths[0]} leaves the image folder")
        files = [self.images / path for path in paths]
        return AnnotatedImage(files[0], split, str(case["id"]), report=report, others=tuple(files[1:]))
