"""CheXmask (Gaggion et al., arXiv 2307.03293): lungs and heart of public radiographs as absolute run lengths along the rows."""

from pathlib import Path

from zoo.data.annotations.base import AnnotatedImage, AnnotationError, AnnotationSource, Problems, Region, find_images
from zoo.data.annotations.masks import Runs
from zoo.data.io.tables import Row, read_table
from zoo.ranges import Fraction
from zoo.registry import register

ID_COLUMNS = ("dicom_id", "image_id", "ImageID", "Image Index", "Path", "Image ID")
"""The column of image ids in the tables of MIMIC-CXR-JPG, VinDr-CXR, PadChest, ChestX-ray8 and CheXpert."""
_STRUCTURES = {"Left Lung": ("lung", "left"), "Right Lung": ("lung", "right"), "Heart": ("heart", "")}
_QUALITY = "Dice RCA (Mean)"


@register("annotation_source", "chexmask")
class CheXmask(AnnotationSource):
    """Masks of both lungs and the heart, for the images of another data set that are here; the masks are a network's."""

    license = "PhysioNet: CC BY 4.0 for the masks; that of its data set for each image"
    source = "CheXmask, https://physionet.org/content/chexmask-cxr-segmentation-data/"
    limitations = "The masks were made by a network (HybridGNet) and checked by a quality estimate, not drawn by hand."

    def __init__(self, table: str, images: str, min_dice: Fraction = 0.7, id_column: str | None = None) -> None:
        """Set the files.

        Args:
            table: one of ``OriginalResolution/*.csv``, gzipped or not.
            images: folder of the images, in whatever sub-folders, named by their ids.
            min_dice: least estimated quality, ``Dice RCA (Mean)``; 0.7 is its authors' advice.
            id_column: the column of image ids; the one of CheXmask's names that the table has if None.
        """
        self.table, self.images = Path(table), Path(images)
        self.min_dice, self.id_column = min_dice, id_column

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`."""
        images: list[AnnotatedImage] = []
        absent = poor = 0
        with problems.at(self.table):
            files = find_images(self.images)
            for line, row in read_table(
                self.table, (_QUALITY, *_STRUCTURES, "Height", "Width"), report=problems.messages.append
            ):
                path = files.get(Path(row[self._id_of(row)]).stem)
                with problems.at(f"{self.table}: line {line}"):
                    if path is None:
                        absent += 1
                    elif float(row[_QUALITY]) < self.min_dice:
                        poor += 1
                    else:
                        images.append(AnnotatedImage(path, regions=_regions(row)))
        if absent:
            problems.note(f"{absent} rows of {self.table.name} have no image below {self.images}")
        if poor:
            problems.note(f"{poor} images have an estimated Dice below {self.min_dice} and are left out")
        return images

    def _id_of(self, row: Row) -> str:
        if self.id_column is not None:
            if self.id_column not in row:
                raise AnnotationError(f"has no column {self.id_column}; it has {', '.join(row)}")
            return self.id_column
        known = [name for name in ID_COLUMNS if name in row]
        if not known:
            raise AnnotationError(f"has none of the columns {', '.join(ID_COLUMNS)}; name that of the ids in id_column")
        return known[0]


def _regions(row: Row) -> tuple[Region, ...]:
    return tuple(
        Region(*target, mask=Runs((row[column],), relative=False, column_major=False, first=1))
        for column, target in _STRUCTURES.items()
        if row[column]
    )
