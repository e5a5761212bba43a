"""Labelled images from a CSV table or a folder of class folders, split by patient."""

import re
from pathlib import Path
from typing import Annotated

from zoo.data.base import LoaderSpec
from zoo.data.classification.base import Classes, ClassificationData, DataError, Item, split_by_patient
from zoo.data.classification.coop_split import parse_patient
from zoo.data.io.tables import TableError, TableSpec
from zoo.ranges import PositiveInt
from zoo.registry import Unpacked, register

_SUFFIXES = (".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".bmp", ".dcm", ".dicom")


class _ImageList(ClassificationData):
    """Rows of (file, class name, patient, split or None), split by patient where no split is given."""

    def _set_rows(self, rows: list[tuple[Path, str, str | None, str | None]]) -> list[str]:
        """Store the rows; returns the class names."""
        if not rows:
            raise DataError("no images were found")
        self._rows = rows
        return sorted({name for _, name, _, _ in rows})

    def read_items(self) -> dict[str, list[Item]]:
        """Assign rows to splits."""
        labels = {name: label for label, name in enumerate(self.all_class_names)}
        splits = {split for *_, split in self._rows}
        if None in splits:
            if splits != {None}:
                raise DataError("some rows have a split and some have none; give all or none")
            assigned = split_by_patient([patient or str(file) for file, _, patient, _ in self._rows], self.loader.seed)
            split_of = {patient: split for split, patients in assigned.items() for patient in patients}
        items: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
        for file, name, patient, split in self._rows:
            name_of_split = split or split_of[patient or str(file)]
            if name_of_split not in items:
                raise DataError(f"{file}: split '{name_of_split}' is none of train, val and test")
            items[name_of_split].append(Item(file, labels[name], patient))
        return items


@register("dataset", "image_csv")
class ImageCsv(_ImageList):
    """A table with a column of paths and one of labels, and if it has them of patients and splits.

    .. versionchanged:: 0.2.0 The columns, the separator, the encoding and the names of the splits are arguments.
    """

    def __init__(
        self,
        table: str,
        images: str | None = None,
        columns: Annotated[TableSpec, Unpacked] = TableSpec(),
        shots: PositiveInt | None = None,
        classes: Classes = "all",
        image_size: PositiveInt = 224,
        augment: bool = False,
        loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(),
    ) -> None:
        """Read the table.

        Args:
            table: the CSV file, with a header.
            images: folder that paths are relative to; that of the table if None.
            columns: the names of the columns, and how the table is written.
            shots: training images per class; all if None.
            classes: all, or the base or novel half.
            image_size: side in pixels that images are resized to.
            augment: whether training images are shifted, rotated and scaled a little.
            loader: how batches are loaded; its seed samples shots and, where the table has no split, patients.

        Raises:
            DataError: the table is missing or malformed.
        """
        folder = Path(images) if images else Path(table).parent
        names = self._set_rows(_read_table(Path(table), folder, columns))
        super().__init__(names, shots, classes, image_size, augment, loader)


def _read_table(table: Path, images: Path, spec: TableSpec) -> list[tuple[Path, str, str | None, str | None]]:
    rows = []
    try:
        for line, row in spec.read(table, [spec.path_column, spec.label_column]):
            path, label = row[spec.path_column], row[spec.label_column]
            if not path or not label:
                raise DataError(f"{table}: line {line}: {spec.path_column} or {spec.label_column} is empty")
            rows.append((images / path, label, row.get(spec.patient_column) or None, spec.split_of(row, table, line)))
    except TableError as error:
        raise DataError(str(error)) from error
    return rows


@register("dataset", "image_folder")
class ImageFolder(_ImageList):
    """A folder ``CLASS/*`` or ``SPLIT/CLASS/*`` of images."""

    def __init__(
        self,
        folder: str,
        patient_pattern: str | None = None,
        shots: PositiveInt | None = None,
        classes: Classes = "all",
        image_size: PositiveInt = 224,
        augment: bool = False,
        loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(),
    ) -> None:
        """List the folder.

        Args:
            folder: its sub-folders are classes, or splits named train, val and test with classes below.
            patient_pattern: regular expression whose first group is the patient in a path.
            shots: training images per class; all if None.
            classes: all, or the base or novel half.
            image_size: side in pixels that images are resized to.
            augment: whether training images are shifted, rotated and scaled a little.
            loader: how batches are loaded; its seed samples shots and, where the folder has no splits, patients.

        Raises:
            DataError: there is no such folder, or no image in it.
        """
        names = self._set_rows(_list_folder(Path(folder), re.compile(patient_pattern) if patient_pattern else None))
        super().__init__(names, shots, classes, image_size, augment, loader)


def _list_folder(folder: Path, pattern: re.Pattern[str] | None) -> list[tuple[Path, str, str | None, str | None]]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    has_splits = (folder / "train").is_dir()
    rows = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.suffix.lower() in _SUFFIXES and len(parts) == 2 + has_splits:
            rows.append(
                (path, parts[-2], parse_patient(path.relative_to(folder), pattern), parts[0] if has_splits else None)
            )
    return rows
