"""MS-CXR (Boecking et al., arXiv 2204.09817): phrases of MIMIC-CXR's reports with the boxes that they describe."""

from collections import defaultdict
from pathlib import Path

from zoo.data.annotations.base import (
    AnnotatedImage,
    AnnotationError,
    AnnotationSource,
    Box,
    Problems,
    Region,
    find_images,
)
from zoo.data.annotations.rsna_pneumonia import corners
from zoo.data.io.tables import Row, canonical_split, read_table
from zoo.registry import register

_COLUMNS = ("dicom_id", "category_name", "label_text", "x", "y", "w", "h", "image_width", "image_height")


@register("annotation_source", "ms_cxr")
class MsCxr(AnnotationSource):
    """Radiographs with sentences, each with its finding and one or more boxes."""

    license = "PhysioNet Credentialed Health Data License 1.5.0"
    source = "MS-CXR, https://physionet.org/content/ms-cxr/, films of MIMIC-CXR-JPG"
    limitations = "Most of its films are in MIMIC-CXR's training split: what was trained on that has seen them."

    def __init__(self, table: str, images: str) -> None:
        """Set the files.

        Args:
            table: ``MS_CXR_Local_Alignment_v1.x.0.csv``.
            images: folder of MIMIC-CXR-JPG, which holds ``files/``, or of its images in whatever sub-folders.
        """
        self.table, self.images = Path(table), Path(images)

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`."""
        boxes: dict[Path, dict[tuple[str, str], list[Box]]] = defaultdict(lambda: defaultdict(list))
        splits: dict[Path, str | None] = {}
        with problems.at(self.table):
            files: dict[str, Path] | None = None
            for line, row in read_table(self.table, _COLUMNS, report=problems.messages.append):
                with problems.at(f"{self.table}: line {line}"):
                    path = self.images / row["path"] if row.get("path") else None
                    if path is None or not path.is_file():
                        files = find_images(self.images) if files is None else files
                        path = files.get(row["dicom_id"], path or self.images / f"{row['dicom_id']}.jpg")
                    box = _box(row)
                    splits[path] = canonical_split(row["split"]) if row.get("split") else None
                    boxes[path][row["category_name"].lower(), row["label_text"]].append(box)
        return [
            AnnotatedImage(
                path,
                splits[path],
                _patient(path),
                regions=tuple(Region(name, "", tuple(own), sentence=text) for (name, text), own in regions.items()),
            )
            for path, regions in boxes.items()
        ]


def _box(row: Row) -> Box:
    left, top, right, bottom = corners(row, ("x", "y", "w", "h"))
    width, height = float(row["image_width"]), float(row["image_height"])
    if left < -1 or top < -1 or right > width + 1 or bottom > height + 1:
        raise AnnotationError(f"the box {[left, top, right, bottom]} is outside its image of {width:g}x{height:g}")
    return left, top, right, bottom


def _patient(path: Path) -> str | None:
    """The patient in ``files/p10/p10000032/s50414267/ID.jpg``; None in other folders."""
    name = path.parent.parent.name
    return name[1:] if name.startswith("p") and name[1:].isdigit() else None
