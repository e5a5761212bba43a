"""CoOp's ``split_*.json`` files (Zhou et al., arXiv 2109.01134), which the 11 BiomedCoOp datasets come with."""

import re
from pathlib import Path
from typing import Annotated

from zoo.data.base import LoaderSpec
from zoo.data.classification.balance import ClassLoaderSpec
from zoo.data.classification.base import Classes, ClassificationData, DataError, Item, read_json
from zoo.data.classification.preparation import Augmentation
from zoo.data.classification.sampling import ShotSampling
from zoo.data.io.images import ImageOptions
from zoo.ranges import PixelSide, PositiveInt
from zoo.registry import Unpacked, register


def read_coop_split(file: Path, images: Path) -> tuple[list[str], dict[str, list[tuple[Path, int]]]]:
    """Class names in the order of their labels, and (image, label) by split.

    Raises:
        DataError: the file is not a CoOp split, or a path leaves the image folder.
    """
    content = read_json(file)
    if not isinstance(content, dict) or not {"train", "val", "test"} <= content.keys():
        raise DataError(f"{file}: is not a CoOp split; it needs the keys train, val and test")
    names: dict[int, str] = {}
    splits: dict[str, list[tuple[Path, int]]] = {}
    for split in ("train", "val", "test"):
        splits[split] = []
        if not isinstance(content[split], list):
            raise DataError(f"{file}: '{split}' is not a list of [path, label, class name]")
        for number, entry in enumerate(content[split]):
            place = f"{file}: {split}[{number}]"
            if not isinstance(entry, list) or len(entry) != 3 or type(entry[1]) is not int:
                raise DataError(f"{place}: is {entry!r:.200}; expected [path, label, class name]")
            path, label, name = Path(str(entry[0])), entry[1], str(entry[2])
            if path.is_absolute() or ".." in path.parts:
                raise DataError(f"{place}: '{path}' leaves the image folder")
            if names.setdefault(label, name) != name:
                raise DataError(f"{place}: label {label} is '{names[label]}' and '{name}'")
            splits[split].append((images / path, label))
    if sorted(names) != list(range(len(names))):
        raise DataError(f"{file}: labels are {sorted(names)}; expected 0 to {len(names) - 1}")
    return [names[label] for label in sorted(names)], splits


@register("dataset", "coop_split")
class CoopSplit(ClassificationData):
    """Images listed in a CoOp split file."""

    def __init__(
        self,
        split_file: str,
        images: str,
        class_names: dict[str, str] | None = None,
        patient_pattern: str | None = None,
        shots: PositiveInt | None = 16,
        shot_sampling: ShotSampling = "independent",
        classes: Classes = "all",
        image_size: PixelSide | None = None,
        augment: Augmentation = False,
        reading: Annotated[ImageOptions, Unpacked] = ImageOptions(),
        loader: Annotated[LoaderSpec, Unpacked] = ClassLoaderSpec(),
    ) -> None:
        """Read the split file.

        Args:
            split_file: the JSON file.
            images: folder that its paths are relative to.
            class_names: names to replace those of the file in prompts, {name in the file: name in the prompt}.
            patient_pattern: regular expression whose first group is the patient in a path, to check the splits.
            shots: training images per class; all if None.
            shot_sampling: how they are sampled: each class by itself, or as CoOp's framework Dassl does.
            classes: all, or the base or novel half.
            image_size: side in pixels of the squares that images are squashed to; the method's own transform alone if None.
            augment: how training images are changed at random: true shifts, rotates and scales them a little, "crop" and
                "crop_flip" take a part of 8 to 100% of the area, "large_crop_flip" of 50 to 100%.
            reading: which frame or slice of the files is read, and their depth.
            loader: how batches are loaded; its seed samples the shots.

        Raises:
            DataError: the file is missing or malformed.
        """
        names, self._listed = read_coop_split(Path(split_file), Path(images))
        replacements = class_names or {}
        prompt_names = [replacements.get(name, name.replace("_", " ")) for name in names]
        super().__init__(prompt_names, shots, classes, image_size, augment, loader)
        self._pattern = re.compile(patient_pattern) if patient_pattern else None
        self._reading, self.shot_sampling = reading, shot_sampling

    def read_items(self) -> dict[str, list[Item]]:
        """The listed images, with their patients where there is a pattern."""
        return {
            split: [Item(path, label, parse_patient(path, self._pattern), self._reading) for path, label in listed]
            for split, listed in self._listed.items()
        }


def parse_patient(path: Path, pattern: re.Pattern[str] | None) -> str | None:
    """The patient named in a path; None without a pattern.

    Raises:
        DataError: the pattern does not match, or has no group.
    """
    if pattern is None:
        return None
    match = pattern.search(str(path))
    if not match or not match.groups():
        raise DataError(f"{path}: the patient pattern '{pattern.pattern}' has no match with a group in it")
    return match.group(1)
