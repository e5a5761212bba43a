"""SIIM-ACR Pneumothorax Segmentation (Kaggle, 2019): DICOM files, and relative run lengths that run down the columns."""

from pathlib import Path

from zoo.data.annotations.base import (
    ABSENT,
    PRESENT,
    AnnotatedImage,
    AnnotationError,
    AnnotationSource,
    Problems,
    Region,
    find_images,
)
from zoo.data.annotations.masks import Runs
from zoo.data.io.run_lengths import decode_runs
from zoo.data.io.tables import read_table
from zoo.ranges import PositiveInt
from zoo.registry import register

_NONE = "-1"


@register("annotation_source", "siim_acr")
class SiimAcr(AnnotationSource):
    """Radiographs with the masks of pneumothoraces, or without; an image with several rows has several parts of one mask."""

    license = "terms of the Kaggle competition siim-acr-pneumothorax-segmentation"
    source = "SIIM-ACR Pneumothorax Segmentation Challenge 2019, films of NIH ChestX-ray14"
    limitations = "The table has no patients: films of one patient may be in several splits."
    label_names = ("pneumothorax",)

    def __init__(self, table: str, images: str, side: PositiveInt = 1024) -> None:
        """Set the files.

        Args:
            table: ``train-rle.csv`` with the columns ImageId and EncodedPixels.
            images: folder of DICOM files, in whatever sub-folders, named by ImageId.
            side: of the images, which are square, in pixels.
        """
        self.table, self.images, self.side = Path(table), Path(images), side

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`; run lengths are checked as they are read."""
        parts: dict[str, list[str]] = {}
        with problems.at(self.table):
            for line, row in read_table(self.table, ("ImageId", "EncodedPixels"), report=problems.messages.append):
                listed = parts.setdefault(row["ImageId"], [])
                if row["EncodedPixels"] == _NONE:
                    continue
                with problems.at(f"{self.table}: line {line}"):
                    if not row["EncodedPixels"]:
                        raise AnnotationError(f"EncodedPixels is blank; {_NONE} stands for no pneumothorax")
                    decode_runs(row["EncodedPixels"], (self.side, self.side), relative=True, column_major=True, first=0)
                    listed.append(row["EncodedPixels"])
        files: dict[str, Path] = {}
        with problems.at(self.images):
            files = find_images(self.images)
        return [
            self._image(files.get(name, self.images / f"{name}.dcm"), texts) for name, texts in parts.items() if files
        ]

    def _image(self, path: Path, texts: list[str]) -> AnnotatedImage:
        if not texts:
            return AnnotatedImage(path, labels={"pneumothorax": ABSENT})
        mask = Runs(tuple(texts), relative=True, column_major=True, first=0)
        return AnnotatedImage(path, labels={"pneumothorax": PRESENT}, regions=(Region("pneumothorax", mask=mask),))
