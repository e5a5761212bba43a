"""DICOM images as they are displayed: lookup tables, window, padding, polarity and colours (PS3.3 C.7.6.3 and C.11)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.io.pixels import ImageError, check_pixel_count, chosen, to_unit

_GREY, _COLOURS = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"
_DEFAULTS = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "PixelRepresentation": 0}
"""Of attributes that are required, and missing or empty in files that people have."""
_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_PLAIN = (_IMPLICIT, _EXPLICIT, _BIG_ENDIAN, "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5")
"""Transfer syntaxes that keep every bit of a sample's cell: native ones, and RLE."""
_ITEM = b"\xfe\xff\x00\xe0"
"""The tag that compressed pixels begin with."""


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its suffix, its preamble, or its first element, where it has no preamble."""
    if path.name.lower().endswith((".dcm", ".dicom")):
        return True
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or (start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00")


def read_dicom(path: Path, frame: int | None = None) -> np.ndarray:
    """Read an image as float32 (1 or 3, height, width) in [0, 1].

    Grey values pass the modality table or rescaling, then the VOI table or the first window; without either they are scaled by
    their extremes, padding left out. MONOCHROME1 is inverted; padding is black. Colours and palettes are scaled by their depth.

    Args:
        path: the file.
        frame: of a file with several.

    Raises:
        ImageError: the file has no pixels, colours that are not read, a compression without its decoder, or no such frame.
    """
    dataset = _open(path)
    frame = chosen(path, "frame", _frames(dataset), frame)
    _complete(dataset)
    photometric = str(dataset.PhotometricInterpretation)
    if photometric not in (*_GREY, *_COLOURS, _PALETTE):
        raise ImageError(f"{path}: has colours as {photometric}, which are not read; convert it to RGB")
    stored, photometric = _decode(path, dataset, frame)
    if photometric == _PALETTE:
        return _apply_palette(stored, dataset)
    if photometric in _COLOURS:
        return _to_rgb(stored, photometric, int(dataset.BitsStored))
    return _to_grey(stored, dataset, frame)[None]


def open_dicom(path: Path) -> Any:
    """A DICOM image as pydicom's dataset, with a transfer syntax where the file has no header.

    Raises:
        ImageError: the file is no DICOM, has no pixels, or is compressed without a header.
    """
    if not path.is_file() or not is_dicom(path):
        raise ImageError(f"{path}: is not a DICOM file")
    dataset = _open(path)
    _transfer_syntax(path, dataset)
    return dataset


def dicom_frames(path: Path) -> int:
    """The number of frames, from the header.

    Raises:
        ImageError: the file has no pixels.
    """
    return _frames(_open(path, stop_before_pixels=True))


def dicom_size(path: Path) -> tuple[int, int]:
    """Height and width, from the header.

    Raises:
        ImageError: the file has no pixels.
    """
    dataset = _open(path, stop_before_pixels=True)
    return int(dataset.Rows), int(dataset.Columns)


def dicom_spacing(path: Path) -> tuple[float, float] | None:
    """Millimetres from row to row and from column to column, in the patient or, of a radiograph, on the detector; None where unknown.

    Raises:
        ImageError: the file has no pixels.
    """
    dataset = _open(path, stop_before_pixels=True)
    for item in _items(dataset, 0, "PixelMeasuresSequence"):
        spacing = item.get("PixelSpacing") or item.get("ImagerPixelSpacing")
        if spacing and len(spacing) == 2 and float(spacing[0]) > 0 and float(spacing[1]) > 0:
            return float(spacing[0]), float(spacing[1])
    return None


def _open(path: Path, **options: Any) -> Any:
    import pydicom

    dataset = pydicom.dcmread(path, force=True, **options)
    if not dataset.get("Rows") or not dataset.get("Columns"):
        raise ImageError(f"{path}: is a DICOM file without pixels, or is truncated")
    check_pixel_count(path, int(dataset.Rows) * int(dataset.Columns))
    return dataset


def _frames(dataset: Any) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _complete(dataset: Any) -> None:
    """Remove attributes without a value, and fill in those that decoding needs."""
    for element in [element for element in dataset if element.is_empty]:
        del dataset[element.tag]
    dataset.BitsAllocated = dataset.get("BitsAllocated") or (16 if dataset.get("BitsStored", 8) > 8 else 8)
    dataset.BitsStored = dataset.get("BitsStored") or dataset.BitsAllocated
    dataset.HighBit = dataset.get("HighBit") or dataset.BitsStored - 1
    for name, value in _DEFAULTS.items():
        if name not in dataset:
            setattr(dataset, name, value)
    if dataset.SamplesPerPixel > 1 and "PlanarConfiguration" not in dataset:
        dataset.PlanarConfiguration = 0


def _transfer_syntax(path: Path, dataset: Any) -> str:
    """The transfer syntax; of a file without a header, that in which pydicom read it."""
    if syntax := dataset.file_meta.get("TransferSyntaxUID"):
        return str(syntax)
    if bytes(dataset.get("PixelData", b"")[:4]) == _ITEM:
        raise ImageError(f"{path}: has compressed pixels and no transfer syntax that says how")
    implicit, little = dataset.original_encoding
    syntax = _IMPLICIT if implicit else _EXPLICIT if little else _BIG_ENDIAN
    dataset.file_meta.TransferSyntaxUID = syntax
    return syntax


def _decode(path: Path, dataset: Any, frame: int) -> tuple[np.ndarray, str]:
    """Stored values of a frame (height, width) or (height, width, 3), and what they are after decoding."""
    from pydicom.pixels import get_decoder

    syntax = _transfer_syntax(path, dataset)
    # pydicom takes the stored bits for the lowest ones of a cell; where they are not, they are moved here
    shifted = dataset.HighBit != dataset.BitsStored - 1 and syntax in _PLAIN and "PixelData" in dataset
    options: dict[str, Any] = {"correct_unused_bits": False} if shifted else {}
    try:
        decoder = get_decoder(syntax)
        values, properties = decoder.as_array(dataset, index=frame, raw=True, **options)
    except NotImplementedError as error:
        raise ImageError(f"{path}: has the transfer syntax {syntax}, which is not an image's: {error}") from error
    except RuntimeError as error:
        name = getattr(dataset.file_meta.TransferSyntaxUID, "name", syntax)
        if "does not support" in str(error):  # Pillow's, of 12 bits
            raise ImageError(
                f"{path}: is compressed as '{name}' with {dataset.BitsStored} bits, which needs another decoder: "
                "pip install pylibjpeg pylibjpeg-libjpeg (GPL)"
            ) from error
        if "missing dependencies" not in str(error):
            raise
        raise ImageError(
            f"{path}: is compressed as '{name}', whose decoder is not installed: pip install 'medvl-zoo[dicom]'"
        ) from error
    if shifted:
        values = _move_bits(values, dataset)
    return values, str(properties["photometric_interpretation"])


def _move_bits(values: np.ndarray, dataset: Any) -> np.ndarray:
    """The bits from HighBit down, with their sign."""
    left = int(dataset.BitsAllocated) - 1 - int(dataset.HighBit)
    right = int(dataset.BitsAllocated) - int(dataset.BitsStored)
    return (values << left) >> right


def _to_rgb(values: np.ndarray, photometric: str, bits: int) -> np.ndarray:
    """Colours (height, width, 3) as (3, height, width); luminance and chrominance after PS3.3 C.7.6.3.1.2."""
    unit = values.astype(np.float32).transpose(2, 0, 1) / float((1 << bits) - 1)
    if not photometric.startswith("YBR_FULL"):  # decoders of JPEG 2000 undo YBR_ICT and YBR_RCT
        return unit.clip(0, 1)
    middle = (1 << (bits - 1)) / ((1 << bits) - 1)
    luminance, blue, red = unit[0], unit[1] - middle, unit[2] - middle
    channels = (luminance + 1.402 * red, luminance - 0.344136 * blue - 0.714136 * red, luminance + 1.772 * blue)
    return np.stack(channels).clip(0, 1)


def _apply_palette(values: np.ndarray, dataset: Any) -> np.ndarray:
    """Colours (3, height, width) of indices (height, width)."""
    entries, first = _descriptor(dataset.RedPaletteColorLookupTableDescriptor)
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        from pydicom.pixels import apply_color_lut

        tables = apply_color_lut(np.arange(entries) + first, dataset)[:, :3].T
    else:
        names = (f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue"))
        tables = np.stack([_table(dataset[name].value, entries, dataset) for name in names])
    depth = 8 if tables.max() < 256 else 16  # descriptors of 16 bits with values of 8 are common
    return _look_up(values, tables, first).astype(np.float32) / float((1 << depth) - 1)


def _descriptor(descriptor: Any) -> tuple[int, int]:
    """Entries of a lookup table, and the value that the first one is for."""
    return int(descriptor[0]) & 0xFFFF or 1 << 16, int(descriptor[1])


def _table(data: Any, entries: int, dataset: Any) -> np.ndarray:
    """The entries of a lookup table, stored as numbers, words or bytes."""
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF
    little = dataset.file_meta.get("TransferSyntaxUID") != _BIG_ENDIAN
    dtype = np.dtype("u1" if len(data) < 2 * entries else "<u2" if little else ">u2")
    return np.frombuffer(data, dtype)[:entries].astype(np.int64)


def _look_up(values: np.ndarray, tables: np.ndarray, first: int) -> np.ndarray:
    """Entries of tables (..., entries) for values; those beyond the ends get the first or the last entry."""
    positions = np.rint(values).astype(np.int64) - first
    return tables[..., positions.clip(0, tables.shape[-1] - 1)]


def _to_grey(stored: np.ndarray, dataset: Any, frame: int) -> np.ndarray:
    padding = _padding(stored, dataset)
    values = _apply_modality(stored, dataset, frame)
    unit = _apply_voi(values, dataset, frame)
    if unit is None:
        tissue = values[~padding] if not padding.all() else values
        unit = to_unit(values, float(tissue.min()), float(tissue.max()))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        unit = 1 - unit
    return np.where(padding & np.isfinite(unit), 0, unit).astype(np.float32)


def _padding(stored: np.ndarray, dataset: Any) -> np.ndarray:
    """Where the scanner has filled the image up: True (height, width)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    ends = [int(end) for end in (value, dataset.get("PixelPaddingRangeLimit", value))]
    if stored.dtype.kind == "i":  # written as if it were unsigned
        bits = 8 * stored.dtype.itemsize
        ends = [end - (1 << bits) if end >= 1 << (bits - 1) else end for end in ends]
    return (stored >= min(ends)) & (stored <= max(ends))


def _apply_modality(stored: np.ndarray, dataset: Any, frame: int) -> np.ndarray:
    for item in _items(dataset, frame, "PixelValueTransformationSequence"):
        if tables := item.get("ModalityLUTSequence"):
            entries, first = _descriptor(tables[0].LUTDescriptor)
            return _look_up(stored, _table(tables[0].LUTData, entries, dataset), first).astype(np.float64)
        slope, intercept = _number(item.get("RescaleSlope")), _number(item.get("RescaleIntercept"))
        if slope or intercept is not None:
            return stored.astype(np.float64) * (slope or 1) + (intercept or 0)
    return stored.astype(np.float64)


def _apply_voi(values: np.ndarray, dataset: Any, frame: int) -> np.ndarray | None:
    """Values in [0, 1] by the first VOI table or window; None without either."""
    for item in _items(dataset, frame, "FrameVOILUTSequence"):
        if tables := item.get("VOILUTSequence"):
            entries, first = _descriptor(tables[0].LUTDescriptor)
            table = _table(tables[0].LUTData, entries, dataset)
            return to_unit(_look_up(values, table, first), float(table.min()), float(table.max()))
        centre, width = _number(item.get("WindowCenter")), _number(item.get("WindowWidth"))
        if centre is not None and width:
            unit = _apply_window(values, centre, width, str(item.get("VOILUTFunction") or "LINEAR"))
            if unit is not None:
                return unit
    return None


def _apply_window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray | None:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3; None for a width that the function does not have."""
    if width <= 0 or (function == "LINEAR" and width < 1):
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -60, 60)))
    if function == "LINEAR_EXACT":
        return ((values - centre) / width + 0.5).clip(0, 1)
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return ((values - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1)


def _items(dataset: Any, frame: int, name: str) -> Iterator[Any]:
    """Where attributes of a frame may be: the functional groups of the frame, those that all share, the file itself."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*per_frame[frame : frame + 1], *(dataset.get("SharedFunctionalGroupsSequence") or [])]
    yield from (group[name].value[0] for group in groups if group.get(name))
    yield dataset


def _number(value: Any) -> float | None:
    """The first of one or several numbers; None if there is none, or it is not finite."""
    first = value if value is None or isinstance(value, int | float) else next(iter(value), None)
    return float(first) if first is not None and np.isfinite(float(first)) else None
