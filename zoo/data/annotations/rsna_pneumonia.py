"""RSNA Pneumonia Detection Challenge (Shih et al., Radiology: AI 2019): DICOM files and a table of boxes."""

from pathlib import Path

from zoo.data.annotations.base import (
    ABSENT,
    PRESENT,
    AnnotatedImage,
    AnnotationError,
    AnnotationSource,
    Box,
    Problems,
    Region,
    merge_images,
)
from zoo.data.io.tables import Row, read_table
from zoo.registry import register


@register("annotation_source", "rsna_pneumonia")
class RsnaPneumonia(AnnotationSource):
    """Radiographs with pneumonia, in one or more boxes, or without; the challenge's test images have no labels and are not read."""

    license = "terms of the Kaggle competition rsna-pneumonia-detection-challenge"
    source = "RSNA Pneumonia Detection Challenge 2018, films of NIH ChestX-ray14"
    limitations = "The table has no patients: films of one patient may be in several splits."
    label_names = ("pneumonia",)

    def __init__(self, folder: str) -> None:
        """Set the folder, with ``stage_2_train_labels.csv`` and ``stage_2_train_images/``.

        Args:
            folder: of the challenge's files.
        """
        self.folder = Path(folder)

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`."""
        images: list[AnnotatedImage] = []
        table = self.folder / "stage_2_train_labels.csv"
        with problems.at(table):
            for line, row in read_table(
                table, ("patientId", "x", "y", "width", "height", "Target"), report=problems.messages.append
            ):
                with problems.at(f"{table}: line {line}"):
                    images.append(self._image(row))
        return merge_images(images)

    def _image(self, row: Row) -> AnnotatedImage:
        path = self.folder / "stage_2_train_images" / f"{row['patientId']}.dcm"
        if row["Target"] not in ("0", "1"):
            raise AnnotationError(f"Target is {row['Target']!r}, neither 0 nor 1")
        if row["Target"] == "0":
            return AnnotatedImage(path, labels={"pneumonia": ABSENT})
        return AnnotatedImage(
            path, labels={"pneumonia": PRESENT}, regions=(Region("pneumonia", boxes=(corners(row),)),)
        )


def corners(row: Row, names: tuple[str, str, str, str] = ("x", "y", "width", "height")) -> Box:
    """The box of a row that gives its left and top edges, width and height.

    Raises:
        ValueError: it is empty, or has something else than numbers.
    """
    left, top, width, height = (float(row[name]) for name in names)
    if not (width > 0 and height > 0):
        raise AnnotationError(f"the box has a width of {width} and a height of {height}")
    return left, top, left + width, top + height
