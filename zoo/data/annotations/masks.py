"""Masks that are decoded when they are asked for: reading a data set of many masks takes no longer than its table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from zoo.data.io.images import ImageError
from zoo.data.io.masks import RunLength, check_run_length, compress_run_lengths, encode_mask, encode_polygons
from zoo.data.io.run_lengths import decode_runs


class MaskSource(Protocol):
    """A mask in the form of its data set."""

    def encode(self, size: tuple[int, int]) -> RunLength:
        """COCO's compressed run lengths, of an image of ``size`` (height, width); the mask may be empty.

        Raises:
            ZooError: the mask is malformed, or of another size.
        """


@dataclass(frozen=True)
class Runs:
    """Run lengths as text; see :func:`zoo.data.io.run_lengths.decode_runs`. Several are the parts of one mask."""

    texts: tuple[str, ...]
    relative: bool
    column_major: bool
    first: int

    def encode(self, size: tuple[int, int]) -> RunLength:
        """The union of the parts."""
        mask = np.zeros(size, dtype=bool)
        for text in self.texts:
            mask |= decode_runs(text, size, relative=self.relative, column_major=self.column_major, first=self.first)
        return encode_mask(mask)


@dataclass(frozen=True)
class MaskFile:
    """An image of a mask: pixels of one ``value``, or if None all that are not 0."""

    path: Path
    value: int | None = None

    def encode(self, size: tuple[int, int]) -> RunLength:
        """Read the file."""
        pixels = read_label_map(self.path)
        if pixels.shape != tuple(size):
            raise ImageError(
                f"{self.path}: is {pixels.shape[1]}x{pixels.shape[0]} pixels and its image {size[1]}x{size[0]}"
            )
        lossy = self.path.suffix.lower() in (".jpg", ".jpeg")  # compression leaves faint pixels around a mask
        background = 127 if lossy else 0
        return encode_mask(pixels > background if self.value is None else pixels == self.value)


@dataclass(frozen=True)
class MaskFiles:
    """Several images of the parts of one mask, as BUSI has them."""

    paths: tuple[Path, ...]

    def encode(self, size: tuple[int, int]) -> RunLength:
        """The union of the files."""
        return unite([MaskFile(path).encode(size) for path in self.paths], size)


@dataclass(frozen=True)
class CocoSegmentations:
    """COCO's ``segmentation`` of one or more instances: polygons, uncompressed or compressed run lengths."""

    segmentations: tuple[Any, ...]

    def encode(self, size: tuple[int, int]) -> RunLength:
        """Their union."""
        return unite([_encode_segmentation(item, size) for item in self.segmentations], size)


def _encode_segmentation(segmentation: Any, size: tuple[int, int]) -> RunLength:
    if isinstance(segmentation, list):
        return encode_polygons(segmentation, size)
    if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list):
        return compress_run_lengths(segmentation, size)
    return check_run_length(segmentation, size)


def unite(masks: Sequence[RunLength], size: tuple[int, int]) -> RunLength:
    """The union of checked run lengths; empty without any."""
    from pycocotools import mask as coco

    if len(masks) == 1:
        return masks[0]
    if not masks:
        return encode_mask(np.zeros(size, dtype=bool))
    merged = coco.merge([{**mask, "counts": mask["counts"].encode("ascii")} for mask in masks])
    return {"size": list(merged["size"]), "counts": merged["counts"].decode("ascii")}


def read_label_map(path: Path) -> np.ndarray:
    """Values of an image of labels (height, width), as they are stored: of a palette the indices, of colours their sum.

    Raises:
        ImageError: the file is missing or damaged, or has more than one frame.
    """
    from PIL import Image

    from zoo.data.io.images import MAX_PIXELS

    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS or getattr(image, "n_frames", 1) > 1:
                raise ImageError(f"{path}: has too many pixels, or several frames")
            pixels = np.asarray(
                image if image.mode in ("1", "L", "P", "I", "I;16", "I;16B", "F") else image.convert("RGB")
            )
    except ImageError:
        raise
    except Exception as error:  # decoders raise errors of many types for damaged bytes
        raise ImageError(f"{path}: cannot be read as a mask: {type(error).__name__}: {error}") from error
    return pixels if pixels.ndim == 2 else pixels.sum(axis=2, dtype=np.int64)
