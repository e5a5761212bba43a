"""Labelled images from a CSV table or a folder of class folders, split by patient."""

import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from zoo.data.base import LoaderSpec
from zoo.data.classification.balance import ClassLoaderSpec
from zoo.data.classification.base import Classes, ClassificationData, DataError, Item, split_by_patient
from zoo.data.classification.coop_split import parse_patient
from zoo.data.classification.preparation import Augmentation
from zoo.data.io.images import HIDDEN_FOLDER, IMAGE_SUFFIXES, ImageOptions, find_image_files
from zoo.data.io.tables import TableError, TableSpec, canonical_split
from zoo.errors import ZooWarning
from zoo.ranges import PixelSide, PositiveInt
from zoo.registry import Unpacked, register


@dataclass(frozen=True)
class _Row:
    """An image with its class and, where they are known, its patient and split."""

    file: Path
    label: str
    patient: str | None
    split: str | None
    options: ImageOptions

    @property
    def group(self) -> str:
        """What is not divided between splits: the patient, or the file."""
        return self.patient or str(self.file)


def check_labels(labels: Collection[str]) -> list[str]:
    """Class names, sorted.

    Raises:
        DataError: two of them differ in case or spaces alone.
    """
    names, alike = sorted(labels), dict[str, str]()
    for name in names:
        if (first := alike.setdefault(" ".join(name.casefold().split()), name)) != name:
            raise DataError(f"the labels '{first}' and '{name}' differ in case or spaces alone; write them alike")
    return names


class _ImageList(ClassificationData):
    """Rows, split by patient and class where no split is given."""

    def _set_rows(self, rows: Sequence[_Row]) -> list[str]:
        """Store the rows; returns the class names."""
        if not rows:
            raise DataError("no images were found")
        self._rows = rows
        return check_labels({row.label for row in rows})

    def read_items(self) -> dict[str, list[Item]]:
        """Assign rows to splits."""
        labels = {name: label for label, name in enumerate(self.all_class_names)}
        splits = {row.split for row in self._rows}
        assigned: dict[str, str] = {}
        if None in splits:
            if splits != {None}:
                raise DataError("some rows have a split and some have none; give all or none")
            groups, names = [row.group for row in self._rows], [row.label for row in self._rows]
            divided = split_by_patient(groups, self.loader.seed, labels=names)
            assigned = {group: split for split, members in divided.items() for group in members}
        items: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
        for row in self._rows:
            split = row.split or assigned[row.group]
            items[split].append(Item(row.file, labels[row.label], row.patient, row.options))
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
        frame_column: str | None = None,
        index_column: str | None = None,
        shots: PositiveInt | None = None,
        classes: Classes = "all",
        image_size: PixelSide | None = None,
        augment: Augmentation = False,
        reading: Annotated[ImageOptions, Unpacked] = ImageOptions(),
        loader: Annotated[LoaderSpec, Unpacked] = ClassLoaderSpec(),
    ) -> None:
        """Read the table.

        Args:
            table: the CSV file, with a header.
            images: folder that paths are relative to; that of the table if None.
            columns: the names of the columns, and how the table is written.
            frame_column: the column of frames, where it differs between rows.
            index_column: the column of slices, where it differs between rows.
            shots: training images per class; all if None.
            classes: all, or the base or novel half.
            image_size: side in pixels of the squares that images are squashed to; the method's own transform alone if None.
            augment: how training images are changed at random: true shifts, rotates and scales them a little, "crop" and
                "crop_flip" take a part of 8 to 100% of the area, "large_crop_flip" of 50 to 100%.
            reading: which frame or slice of the files is read, and their depth.
            loader: how batches are loaded; its seed samples shots and, where the table has no split, patients.

        Raises:
            DataError: the table is missing or malformed.
        """
        folder = Path(images) if images else Path(table).parent
        numbers = {"frame": frame_column, "index": index_column}
        named = {field: column for field, column in numbers.items() if column}
        names = self._set_rows(list(_read_table(Path(table), folder, columns, named, reading)))
        super().__init__(names, shots, classes, image_size, augment, loader)


def _read_table(
    table: Path, images: Path, spec: TableSpec, numbers: Mapping[str, str], reading: ImageOptions
) -> Iterator[_Row]:
    """Rows of a table; ``numbers`` are the columns of image options, by option."""
    try:
        for line, row in spec.read(table, [spec.path_column, spec.label_column, *numbers.values()]):
            path, label = row[spec.path_column], row[spec.label_column]
            if not path or not label:
                raise DataError(f"{table}: line {line}: {spec.path_column} or {spec.label_column} is empty")
            own = {option: row[column] for option, column in numbers.items() if row[column]}
            if wrong := [value for value in own.values() if not value.isdecimal()]:
                raise DataError(f"{table}: line {line}: '{wrong[0]}' is no number of a frame or slice")
            options = replace(reading, **{option: int(value) for option, value in own.items()})
            split = spec.split_of(row, table, line)
            yield _Row(images / path, label, row.get(spec.patient_column) or None, split, options)
    except TableError as error:
        raise DataError(str(error)) from error


@register("dataset", "image_folder")
class ImageFolder(_ImageList):
    """A folder ``CLASS/**`` or ``SPLIT/CLASS/**`` of images.

    Hidden files and folders are left out. Files that are no images are named in a warning, class folders without any in an error.

    .. versionchanged:: 0.2.0 Splits may be called Training, Validation, Testing and so on, and class folders may hold folders.
    """

    def __init__(
        self,
        folder: str,
        patient_pattern: str | None = None,
        shots: PositiveInt | None = None,
        classes: Classes = "all",
        image_size: PixelSide | None = None,
        augment: Augmentation = False,
        reading: Annotated[ImageOptions, Unpacked] = ImageOptions(),
        loader: Annotated[LoaderSpec, Unpacked] = ClassLoaderSpec(),
    ) -> None:
        """List the folder.

        Args:
            folder: its sub-folders are classes, or splits named train, val and test with classes below.
            patient_pattern: regular expression whose first group is the patient in a path.
            shots: training images per class; all if None.
            classes: all, or the base or novel half.
            image_size: side in pixels of the squares that images are squashed to; the method's own transform alone if None.
            augment: how training images are changed at random: true shifts, rotates and scales them a little, "crop" and
                "crop_flip" take a part of 8 to 100% of the area, "large_crop_flip" of 50 to 100%.
            reading: which frame or slice of the files is read, and their depth.
            loader: how batches are loaded; its seed samples shots and, where the folder has no splits, patients.

        Raises:
            DataError: there is no such folder, a class folder holds no image, or folders of splits and of classes are mixed.
        """
        pattern = re.compile(patient_pattern) if patient_pattern else None
        names = self._set_rows(list(_list_folder(Path(folder), pattern, reading)))
        super().__init__(names, shots, classes, image_size, augment, loader)


def _list_folder(folder: Path, pattern: re.Pattern[str] | None, reading: ImageOptions) -> Iterator[_Row]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    for split, parent in _split_folders(folder):
        classes = _visible_folders(parent)
        if not classes:
            raise DataError(f"{parent}: has no folders, one for each class; it holds {_contents(parent)}")
        for class_folder in classes:
            for path in _images_below(class_folder, may_be_empty=split in ("val", "test")):
                patient = parse_patient(path.relative_to(folder), pattern)
                yield _Row(path, class_folder.name, patient, split, reading)


def _split_folders(folder: Path) -> list[tuple[str | None, Path]]:
    """Each split's folder; the folder itself, without a split, where its sub-folders are classes.

    They are splits if one is called as a training split is, or all as splits are: "valid" and "invalid" are classes.
    """
    splits = {child: canonical_split(child.name) for child in _visible_folders(folder)}
    if "train" not in splits.values() and (not splits or None in splits.values()):
        return [(None, folder)]
    if others := sorted(child.name for child, split in splits.items() if split is None):
        raise DataError(
            f"{folder}: has folders of splits and '{others[0]}', which is none; splits are called train, val and test, "
            "or training, validation and testing"
        )
    return [(split, child) for child, split in splits.items()]


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(
        child
        for child in folder.iterdir()
        if child.is_dir() and not child.name.startswith(".") and child.name != HIDDEN_FOLDER
    )


def _images_below(folder: Path, *, may_be_empty: bool) -> list[Path]:
    """The images of a class folder and its sub-folders; the others are named."""
    images, others = find_image_files(folder)
    if not images and (others or not may_be_empty):
        raise DataError(
            f"{folder}: is a folder of a class and has no images; it holds {_contents(folder)}. "
            f"Images end in {', '.join(IMAGE_SUFFIXES)}"
        )
    if others:
        message = f"{folder}: left out what is no image: {_count_suffixes(iter(others))}"
        warnings.warn(message, ZooWarning, stacklevel=2)
    return images


def _contents(folder: Path) -> str:
    return _count_suffixes(path for path in folder.rglob("*") if path.is_file()) or "nothing"


def _count_suffixes(paths: Iterator[Path]) -> str:
    """How many files of each suffix: "3 of .txt, 1 without suffix"."""
    counts = Counter(path.suffix for path in paths)
    return ", ".join(f"{count} {f'of {suffix}' if suffix else 'without suffix'}" for suffix, count in counts.items())
