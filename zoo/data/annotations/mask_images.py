"""Folders of images and of mask images: ``images/`` and ``masks/``, ``*_mask.png`` beside the images, label maps, BiomedParse."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

from zoo.data.annotations.base import (
    IMAGE_SUFFIXES,
    AnnotatedImage,
    AnnotationError,
    AnnotationSource,
    Problems,
    Region,
)
from zoo.data.annotations.masks import MaskFile, MaskFiles
from zoo.data.io.tables import SPLITS
from zoo.errors import counted
from zoo.ranges import NonNegativeInt
from zoo.registry import register

PLACEHOLDER = "{split}"
_MASK_WORD = re.compile(r"(?:^|_)(?:masks?|seg|segmentation|gt)(?:_\d+)?$|^$", re.IGNORECASE)
_MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif", ".jpg", ".jpeg")


@register("annotation_source", "mask_images")
class MaskImages(AnnotationSource):
    """Images with masks in files of their own, whose names begin with that of the image.

    What follows the image's name says what a mask is of. After nothing, ``_mask``, ``_seg``, ``_segmentation``, ``_gt`` or
    ``_mask_1`` (one of several parts) it is the one ``target``; another word, as in BiomedParse's ``IMAGE_TARGET.png``, is the
    target itself ("+" and "_" are spaces). Pixels that are not 0 are the target, unless ``labels`` names the values of a label map.
    Masks in the folder of the images must end in one of these words.
    """

    def __init__(
        self,
        images: str,
        masks: str | None = None,
        target: str = "lesion",
        labels: dict[NonNegativeInt, str] | None = None,
    ) -> None:
        """Set the folders.

        Args:
            images: folder of the images, sub-folders included; "{split}" in it stands for train, val and test.
            masks: folder of the masks, with the same place for the split; the folder of the images if None.
            target: what a mask is of where its file does not say.
            labels: names of the values of label maps, {1: liver, 2: left kidney}; other values are background.
        """
        self.images, self.masks, self.target, self.labels = images, masks or images, target, labels

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`; a mask without an image is a problem."""
        images: list[AnnotatedImage] = []
        for split in existing_splits(self.images):
            with problems.at(in_split(self.images, split)):
                images += self._scan_split(split, problems)
        return images

    def _scan_split(self, split: str | None, problems: Problems) -> list[AnnotatedImage]:
        image_folder, mask_folder = in_split(self.images, split), in_split(self.masks, split)
        files = _by_place(image_folder, IMAGE_SUFFIXES)
        masks = _by_place(mask_folder, _MASK_SUFFIXES)
        if mask_folder == image_folder:
            masks = {key: path for key, path in masks.items() if _MASK_WORD.search(key)}
            files = {key: path for key, path in files.items() if key not in masks}
        found: dict[str, list[tuple[str, Path]]] = defaultdict(list)
        for key, path in masks.items():
            image = _image_of(key, files)
            if image is None:
                problems.add(path, f"no image in {image_folder} has a name that this begins with")
            else:
                found[image].append((key[len(image) :], path))
        without = [str(path.name) for key, path in files.items() if key not in found]
        if without:
            problems.note(f"{counted(len(without), 'image', 'has')} no mask, as {without[0]}")
        return [AnnotatedImage(path, split, regions=tuple(self._regions(found[key]))) for key, path in files.items()]

    def _regions(self, masks: list[tuple[str, Path]]) -> Iterator[Region]:
        if self.labels is not None:
            for _, path in masks:
                yield from (Region(name, mask=MaskFile(path, value)) for value, name in self.labels.items())
            return
        parts: dict[str, list[Path]] = defaultdict(list)
        for rest, path in masks:
            parts[_target(rest) or self.target].append(path)
        for name, paths in parts.items():
            yield Region(name, mask=MaskFiles(tuple(paths)))


def existing_splits(pattern: str) -> list[str | None]:
    """The splits for which a path with a placeholder exists; None alone for a path without.

    Raises:
        AnnotationError: there is a placeholder, and none exists.
    """
    if PLACEHOLDER not in pattern:
        return [None]
    splits: list[str | None] = [split for split in SPLITS if in_split(pattern, split).exists()]
    if not splits:
        raise AnnotationError(f"{pattern}: does not exist for any of {', '.join(SPLITS)}")
    return splits


def in_split(pattern: str, split: str | None) -> Path:
    """A path with its placeholder filled in."""
    return Path(pattern.replace(PLACEHOLDER, split or ""))


def _by_place(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files by their place in a folder without suffix, as ``benign/benign (1)``; hidden ones are left out."""
    if not folder.is_dir():
        raise AnnotationError(f"{folder}: there is no such folder")
    places: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.suffix.lower() in suffixes and not any(part.startswith(".") for part in place.parts):
            key = place.with_suffix("").as_posix()
            if places.setdefault(key, path) != path:
                raise AnnotationError(f"{path}: has the same name as {places[key]}; which one is meant?")
    return places


def _image_of(mask: str, images: Collection[str]) -> str | None:
    """The image that a mask belongs to: that of the same name, else the longest whose name it begins with."""
    while mask:
        if mask in images:
            return mask
        mask = mask.rpartition("_")[0]
    return None


def _target(rest: str) -> str:
    """What the rest of a mask's name says that it is of; empty where it says that it is a mask."""
    return "" if _MASK_WORD.fullmatch(rest) else " ".join(rest.replace("+", "_").split("_")).strip()
