"""Labelled images: few-shot sampling, base and novel classes, and the checks that every source passes."""

import json
import os
import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from zoo.data.base import LoaderSpec, Sample
from zoo.data.classification.balance import is_balanced, sample_weights
from zoo.data.classification.preparation import Augmentation, ImagePreparation, PreparedData
from zoo.data.classification.sampling import (
    MOST_VAL_SHOTS,
    ShotSampling,
    sample_as_dassl,
    sample_independently,
)
from zoo.data.io.images import ImageOptions, check_options
from zoo.errors import ZooError, ZooWarning, counted

Classes = Literal["all", "base", "novel"]


class DataError(ZooError, ValueError):
    """An unusable dataset; the message names the entry and the reason."""


@dataclass(frozen=True)
class Item:
    """One labelled image: ``source`` is a file or an index; ``patient`` is None where it is unknown.

    ``options`` say which part of a file is read; None where the source is no file, or has one image in any case.
    """

    source: Path | int
    label: int
    patient: str | None = None
    options: ImageOptions | None = None


class LabelledImages(Dataset[Sample]):
    """Images with labels, read at access and prepared."""

    sample_weights: torch.Tensor | None = None
    """How often each image is drawn for training; all alike if None."""

    def __init__(
        self, items: Sequence[Item], read: Callable[[Item], torch.Tensor], preparation: ImagePreparation
    ) -> None:
        """Hold the items, and what reads the image of one."""
        self.items, self._read, self.preparation = list(items), read, preparation

    def without_augmentation(self) -> "LabelledImages":
        """The same images as they are."""
        return LabelledImages(self.items, self._read, self.preparation.without_augmentation())

    def __len__(self) -> int:
        """Number of images."""
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        """``image`` (channels, height, width) in [0, 1], ``label`` and ``source`` as text."""
        item = self.items[index]
        return {"image": self.preparation(self._read(item)), "label": item.label, "source": str(item.source)}


class ClassificationData(PreparedData):
    """A dataset of labelled images in three splits, complete or few-shot.

    With ``shots`` K, the training split is K images per class, sampled by the seed, and the validation split at most 4
    (CoOp's protocol). ``classes`` "base" and "novel" are the first and the second half of the class list.
    """

    shot_sampling: ShotSampling = "independent"
    template: str = ""
    """Prompt for a class, with {} for its name, if the data set has one; a method's default otherwise."""

    def __init__(
        self,
        class_names: list[str],
        shots: int | None,
        classes: Classes,
        image_size: int | None,
        augment: Augmentation,
        loader: LoaderSpec,
    ) -> None:
        """Set the protocol.

        Raises:
            DataError: class names are empty or not unique, a half has one class only, or shots is not positive.
        """
        super().__init__(loader)
        check_class_names(class_names, least=1)  # a table that is measured on may hold one class of several
        if shots is not None and shots < 1:
            raise DataError(f"shots is {shots}; it must be at least 1, or null for all images")
        half = (len(class_names) + 1) // 2
        subset = {"all": slice(None), "base": slice(half), "novel": slice(half, None)}[classes]
        self.all_class_names, self.class_names, self.classes = class_names, class_names[subset], classes
        if classes != "all" and len(self.class_names) < 2:
            raise DataError(f"the {classes} half of {len(class_names)} classes is one class; classification needs two")
        self._labels = list(range(len(class_names)))[subset]
        self.shots, self.image_size, self.augment = shots, image_size, augment
        self._items: dict[str, list[Item]] | None = None

    def use_class_names(self, names: Sequence[str]) -> None:
        """Take the classes of a model in its order, so that the labels are its outputs' positions; some may have no image.

        Raises:
            DataError: the data have a class that is not among them.
        """
        if unknown := [name for name in self.class_names if name not in names]:
            raise DataError(f"the data have the classes {', '.join(unknown)}; the model knows {', '.join(names)}")
        labels = dict(zip(self.class_names, self._labels, strict=True))
        self._labels = [labels.get(name, -1) for name in names]
        self.class_names, self._items, self._splits = list(names), None, {}

    @abstractmethod
    def read_items(self) -> dict[str, list[Item]]:
        """All labelled images by split, labels as in ``all_class_names``."""

    def read(self, source: Any) -> torch.Tensor:
        """Read one image (channels, height, width) in [0, 1]; from a file unless a subclass overrides this."""
        return self.read_file(source)

    def open_split(self, name: str) -> Dataset[Sample]:
        """Open a split of the checked and sampled items.

        Raises:
            DataError: a class has no training image, a patient or a file is in two splits, a file has two labels, is missing,
                or does not say which of its frames or slices is meant.
        """
        if self._items is None:
            self._items = self._sample_items()
        items = self._items[name]
        if name == "train":
            check_classes(items, self.class_names)
        else:
            warn_of_missing_classes(items, self.class_names, name)
        images = LabelledImages(items, self._read_item, self.preparation(name))
        if name == "train" and is_balanced(self.loader):
            images.sample_weights = sample_weights([item.label for item in items])
        return images

    def _read_item(self, item: Item) -> torch.Tensor:
        return self.read(item.source) if item.options is None else item.options.read(str(item.source), self.read_file)

    def class_counts(self, split: str = "train") -> torch.Tensor:
        """Number of images (classes) of each class in a split."""
        labels = [item.label for item in self.split(split).items]  # type: ignore[attr-defined]
        return torch.bincount(torch.tensor(labels, dtype=torch.long), minlength=len(self.class_names))

    def _sample_items(self) -> dict[str, list[Item]]:
        check_class_names(self.class_names)
        splits = self.read_items()
        check_repeats(splits, self.all_class_names)
        check_patients(splits)
        check_files(splits)
        few = [self.shots, min(self.shots, MOST_VAL_SHOTS)] if self.shots is not None else []
        if few and self.shot_sampling == "dassl":
            sampled = sample_as_dassl([splits["train"], splits["val"]], few, self.loader.seed)
            splits = {**splits, "train": sampled[0], "val": sampled[1]}
        relabel = {old: new for new, old in enumerate(self._labels) if old >= 0}
        items = {
            split: [replace(item, label=relabel[item.label]) for item in listed if item.label in relabel]
            for split, listed in splits.items()
        }
        if few and self.shot_sampling == "independent":
            for stream, split in enumerate(("train", "val")):
                classes = len(self.class_names)
                items[split] = sample_independently(items[split], few[stream], classes, self.loader.seed, stream)
        for item in (item for listed in items.values() for item in listed if _may_hold_several(item)):
            check_options(Path(str(item.source)), item.options or ImageOptions())
        return items

    def metadata(self) -> dict[str, Any]:
        """``class_names`` in use; the data set's prompt ``template`` and ``class_texts`` (descriptions by class) if it has them."""
        texts = {name: list(self.class_texts[name]) for name in self.class_names if name in self.class_texts}
        offered = {"template": self.template, "class_texts": texts}
        return {"class_names": self.class_names} | {name: value for name, value in offered.items() if value}

    @property
    def class_texts(self) -> Mapping[str, Sequence[str]]:
        """Descriptions of classes, by name, for prompt ensembles; none by default."""
        return {}


_ONE_IMAGE = (".png", ".jpg", ".jpeg", ".bmp", ".jp2")
"""Suffixes of files that need no look at their header: of several images in them, reading says so."""


def _may_hold_several(item: Item) -> bool:
    return isinstance(item.source, Path) and item.source.suffix.lower() not in _ONE_IMAGE


def check_class_names(names: Sequence[str], least: int = 2) -> None:
    """Raise DataError unless there are at least two names, or ``least``, none of them blank or repeated."""
    duplicates = [name for name, count in Counter(names).items() if count > 1]
    if len(names) < least or duplicates or any(not str(name).strip() for name in names):
        raise DataError(f"class names must be at least two, none of them blank or repeated; got {list(names)}")


def check_classes(items: Sequence[Item], names: Sequence[str]) -> None:
    """Raise DataError where a class has no training image."""
    present = {item.label for item in items}
    empty = [name for label, name in enumerate(names) if label not in present]
    if empty:
        raise DataError(f"no image of {', '.join(map(repr, empty))} in split 'train'; drop the class or add images")


def warn_of_missing_classes(items: Sequence[Item], names: Sequence[str], split: str) -> None:
    """Name the classes without an image in a split that has any."""
    present = {item.label for item in items}
    empty = [name for label, name in enumerate(names) if label not in present]
    if items and empty:
        shown = ", ".join(map(repr, empty[:5])) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        warnings.warn(f"no image of {shown} in split '{split}': nothing is measured on them", ZooWarning, stacklevel=2)


def check_repeats(items: Mapping[str, Sequence[Item]], names: Sequence[str]) -> None:
    """Raise DataError where a file is in two splits, has two labels, or is listed twice."""
    splits: dict[str, str] = {}
    labels: dict[tuple[str, ImageOptions | None], int] = {}
    for split, item in ((split, item) for split, listed in items.items() for item in listed):
        if not isinstance(item.source, Path):
            continue
        path = os.path.abspath(item.source)
        if splits.setdefault(path, split) != split:
            raise DataError(f"{item.source} is in the splits '{splits[path]}' and '{split}'")
        part = (path, item.options)
        if (label := labels.get(part)) is not None:
            raise DataError(
                f"{item.source} has the labels '{names[label]}' and '{names[item.label]}'"
                if label != item.label
                else f"{item.source} is listed twice in the split '{split}'"
            )
        labels[part] = item.label


def check_patients(items: dict[str, list[Item]]) -> None:
    """Raise DataError where a patient is in two splits."""
    splits: dict[str, str] = {}
    for split, listed in items.items():
        for patient in {item.patient for item in listed if item.patient is not None}:
            if splits.setdefault(patient, split) != split:
                raise DataError(f"patient '{patient}' is in the splits '{splits[patient]}' and '{split}'")


def check_files(items: dict[str, list[Item]]) -> None:
    """Raise DataError where files are missing, naming the first ones."""
    sources = (item.source for listed in items.values() for item in listed)
    missing = [str(source) for source in sources if isinstance(source, Path) and not source.is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(f"missing image files: {', '.join(missing[:3])}{more}")


def split_by_patient(
    patients: Sequence[str], seed: int, held_out: float = 0.2, labels: Sequence[str] | None = None
) -> dict[str, set[str]]:
    """Assign patients to train, val and test at random; val and test get a share ``held_out`` each, at least one patient.

    With labels, the patients of each class are divided apart, so that a class of three patients or more is in every split; a
    patient of several classes counts for the rarest. Those of a class of one or two patients are trained on.

    Args:
        patients: of each image.
        seed: of the assignment.
        held_out: share of val, and of test.
        labels: class of each image.

    Raises:
        DataError: there are fewer than three patients.
    """
    unique = sorted(set(patients))
    if len(unique) < 3:
        raise DataError(
            f"{counted(len(unique), 'patient')} cannot be split into train, val and test; give each image a split"
        )
    rng = np.random.default_rng(seed)
    splits: dict[str, set[str]] = {"test": set(), "val": set(), "train": set()}
    for group in [unique] if labels is None else _patients_by_class(patients, labels):
        order = [group[i] for i in rng.permutation(len(group))]
        count = max(int(len(order) * held_out), 1) if len(order) >= 3 else 0
        splits["test"] |= set(order[:count])
        splits["val"] |= set(order[count : 2 * count])
        splits["train"] |= set(order[2 * count :])
    return splits if splits["test"] else split_by_patient(patients, seed, held_out)


def _patients_by_class(patients: Sequence[str], labels: Sequence[str]) -> list[list[str]]:
    """The patients whose rarest class it is, for each class in order."""
    counts = Counter(labels)
    rarest: dict[str, str] = {}
    for patient, label in zip(patients, labels, strict=True):
        rarest[patient] = min(rarest.get(patient, label), label, key=lambda name: (counts[name], name))
    return [sorted(one for one, own in rarest.items() if own == label) for label in sorted(counts)]


def read_json(path: Path, limit: int = 200_000_000) -> Any:
    """Read a JSON file with a size limit; a byte order mark is not part of the text.

    Raises:
        DataError: it is missing, too large or malformed.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    if path.stat().st_size > limit:
        raise DataError(f"{path}: is larger than {limit} bytes")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
        raise DataError(f"{path}: is not readable JSON: {error}") from error
