"""VinDr-CXR (Nguyen et al., arXiv 2012.15029): DICOM files, and tables of boxes by several radiologists."""

from collections import defaultdict
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
    find_images,
)
from zoo.data.io.tables import Row, read_table
from zoo.ranges import PositiveInt
from zoo.registry import register

NO_FINDING = "No finding"
_CORNERS = ("x_min", "y_min", "x_max", "y_max")


@register("annotation_source", "vindr_cxr")
class VindrCxr(AnnotationSource):
    """Radiographs with findings and their boxes; a finding is present where enough radiologists marked it, else absent.

    The training images have three radiologists each, the test images one consensus. All boxes of a finding that is present are
    kept, those of several radiologists around the same place too.
    """

    license = "PhysioNet Credentialed Health Data License 1.5.0"
    source = "VinDr-CXR, https://physionet.org/content/vindr-cxr/"
    limitations = "The public tables have no patients: films of one patient may be in several splits."

    def __init__(self, folder: str, min_readers: PositiveInt = 1) -> None:
        """Set the folder.

        Args:
            folder: with ``annotations/annotations_train.csv``, ``annotations_test.csv`` (or the tables beside the images) and
                the images, ``train/`` and ``test/``, as DICOM or converted; or Kaggle's ``train.csv`` and ``train/``.
            min_readers: how many radiologists must mark a finding, at most one where a table names none.
        """
        self.folder, self.min_readers = Path(folder), min_readers

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`."""
        images: list[AnnotatedImage] = []
        kaggle = [path for path in [self.folder / "train.csv"] if path.is_file()]
        tables = sorted(self.folder.rglob("annotations_*.csv")) or kaggle
        if not tables:
            problems.add(self.folder, "has no annotations_train.csv or annotations_test.csv")
        rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for table in tables:
            with problems.at(table):
                split = table.stem.rpartition("_")[2]
                if split not in ("train", "test"):
                    raise AnnotationError(f"'{split}' is neither train nor test")
                for line, row in read_table(
                    table, ("image_id", "class_name", *_CORNERS), report=problems.messages.append
                ):
                    with problems.at(f"{table}: line {line}"):
                        _box(row)
                        rows[split, row["image_id"]].append(row)
        names = sorted({row["class_name"] for listed in rows.values() for row in listed} - {NO_FINDING})
        files: dict[str, dict[str, Path]] = {}
        for split in {split for split, _ in rows}:
            with problems.at(self.folder / split):
                files[split] = find_images(self.folder / split)
        for (split, image_id), listed in rows.items():
            if split in files:
                path = files[split].get(image_id, self.folder / split / f"{image_id}.dicom")
                images.append(self._image(path, split, listed, names))
        return images

    def _image(self, path: Path, split: str, rows: list[Row], names: list[str]) -> AnnotatedImage:
        readers, boxes = defaultdict(set), defaultdict(list)
        for row in rows:
            readers[row["class_name"]].add(row.get("rad_id") or row.get("rad_ID") or "")
            if (box := _box(row)) is not None:
                boxes[row["class_name"]].append(box)
        needed = 1 if all(members == {""} for members in readers.values()) else self.min_readers
        present = [name for name in names if len(readers[name]) >= needed]
        labels = {name: PRESENT if name in present else ABSENT for name in names}
        regions = tuple(Region(name.lower(), boxes=tuple(boxes[name])) for name in present if boxes[name])
        return AnnotatedImage(path, split, None, {NO_FINDING: ABSENT if present else PRESENT, **labels}, regions)


def _box(row: Row) -> Box | None:
    """The box of a row; None where its corners are blank or NaN, as for "No finding".

    Raises:
        ValueError: some corners are there and some not, or the box is empty.
    """
    blank = [row[corner].lower() in ("", "nan") for corner in _CORNERS]
    if all(blank):
        return None
    if any(blank):
        raise AnnotationError("a box has some of its four corners only")
    left, top, right, bottom = (float(row[corner]) for corner in _CORNERS)
    if not (left < right and top < bottom):
        raise AnnotationError(f"the box {[left, top, right, bottom]} is empty")
    return left, top, right, bottom
