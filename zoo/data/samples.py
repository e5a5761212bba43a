"""Samples of a data set as JSON, small enough to travel in a card: images as JPEG, masks as run lengths, records by their fields.

Reading one builds the plain classes named here and nothing else.
"""

import base64
import io
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.data.conversations.records import Target, Turn
from zoo.data.io.masks import check_run_length, decode_masks, encode_mask
from zoo.data.traces.records import IvlRecord, Step
from zoo.errors import ZooError

_QUALITY = 60
_MAX_PIXELS = 1_000_000
_RECORDS: dict[str, type[Any]] = {record.__name__: record for record in (Target, Turn, IvlRecord, Step)}


class SampleError(ZooError, ValueError):
    """A sample that has no such form, or is malformed."""


def encode_sample(value: Any) -> Any:
    """A value of a sample as JSON values.

    Raises:
        SampleError: it is of a type that has no such form.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        return _encode_tensor(value)
    if isinstance(value, Path):
        return {"path": value.name}
    if isinstance(value, list):
        return [encode_sample(item) for item in value]
    if type(value) is tuple:
        return {"tuple": [encode_sample(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode_sample(key), encode_sample(item)] for key, item in value.items()]}
    if is_dataclass(value) and type(value) is _RECORDS.get(type(value).__name__):
        content = {field.name: encode_sample(getattr(value, field.name)) for field in fields(value)}
        return {"record": type(value).__name__, "fields": content}
    raise SampleError(f"a {type(value).__name__} has no form in a card")


def decode_sample(content: Any) -> Any:
    """The value that :func:`encode_sample` encoded.

    Raises:
        SampleError: the content is malformed.
    """
    try:
        return _decode(content)
    except SampleError:
        raise
    except (KeyError, TypeError, ValueError, OSError, RuntimeError, AttributeError, OverflowError) as error:
        raise SampleError(f"a sample is malformed: {type(error).__name__}: {error}") from error


def _decode(content: Any) -> Any:
    if isinstance(content, list):
        return [_decode(item) for item in content]
    if not isinstance(content, dict):
        return content
    if "record" in content:
        record = _RECORDS[content["record"]]
        return record(**{name: _decode(item) for name, item in content["fields"].items()})
    ((kind, value),) = content.items()
    return _DECODERS[kind](value)


def _encode_tensor(value: torch.Tensor) -> Any:
    array = value.detach().cpu()
    if array.is_floating_point() and array.ndim == 3 and array.numel():
        if bool(((array == 0) | (array == 1)).all()):
            return {"masks": [encode_mask(mask.numpy() > 0) for mask in array]}
        if array.shape[0] in (1, 3) and bool(((array >= 0) & (array <= 1)).all()):
            return {"jpeg": _encode_jpeg(array)}
    if array.numel() > 10_000:
        raise SampleError(f"a tensor of {tuple(array.shape)} is too large for a card")
    return {"tensor": [str(array.dtype).removeprefix("torch."), list(array.shape), array.flatten().tolist()]}


def _encode_jpeg(image: torch.Tensor) -> str:
    from PIL import Image

    pixels = (image * 255).round().byte().numpy().transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "JPEG", quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _decode_jpeg(text: str) -> torch.Tensor:
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["JPEG"]) as image:
        if image.width * image.height > _MAX_PIXELS or image.mode not in ("L", "RGB"):
            raise SampleError(f"an image of {image.width}x{image.height} in mode {image.mode} is no sample")
        pixels = np.asarray(image).astype(np.float32) / 255
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


def _decode_masks(masks: Any) -> torch.Tensor:
    height, width = check_run_length(masks[0])["size"]
    return decode_masks(masks, (height, width))


def _decode_tensor(content: Any) -> torch.Tensor:
    dtype, shape, values = content
    if dtype not in ("float32", "float64", "int64", "int32", "bool", "uint8"):
        raise SampleError(f"'{dtype}' is no type of a sample's numbers")
    return torch.tensor(values, dtype=getattr(torch, dtype)).reshape(shape)


_DECODERS: dict[str, Any] = {
    "tensor": _decode_tensor,
    "jpeg": _decode_jpeg,
    "masks": _decode_masks,
    "path": Path,
    "tuple": lambda items: tuple(map(_decode, items)),
    "dict": lambda items: {_decode(key): _decode(item) for key, item in items},
}
