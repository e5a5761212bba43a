"""Weights that training starts from: their names, their fingerprint, and whether they are wanted at all."""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_ASSUMED: ContextVar[list[str] | None] = ContextVar("assumed", default=None)
"""What is assumed of weights that are not looked for; None where they are."""


@contextlib.contextmanager
def without_weights() -> Iterator[list[str]]:
    """Inside, models are built at their full size but no pretrained weights are looked for (``zoo plan``).

    Gives the list to which models add, by :func:`assume`, what they assume of weights that they do not see.
    """
    assumed: list[str] = []
    token = _ASSUMED.set(assumed)
    try:
        yield assumed
    finally:
        _ASSUMED.reset(token)


def should_load_weights() -> bool:
    """False inside :func:`without_weights`."""
    return _ASSUMED.get() is None


def assume(what: str) -> None:
    """Note what a model built :func:`without_weights` assumes of them."""
    assumed = _ASSUMED.get()
    if assumed is not None:
        assumed.append(what)


def mark_quantized(parameter: "torch.Tensor", quantization: str) -> None:
    """Say that a planned weight is held quantised ("nf4" or "int8")."""
    parameter.quantization = quantization  # type: ignore[attr-defined]


def stored_bytes(parameter: "torch.Tensor") -> float:
    """Bytes that a weight takes, those of a quantised one included.

    NF4 has 4 bits a weight, an 8-bit constant for each 64, and a 32-bit one for each 256 of those (arXiv 2305.14314, 3);
    int8 has a float32 constant for each row.
    """
    quantization = getattr(parameter, "quantization", None)
    if quantization == "nf4":
        return parameter.numel() * (4 + 8 / 64 + 32 / (64 * 256)) / 8
    if quantization == "int8":
        return parameter.numel() + 4 * len(parameter)
    return parameter.numel() * parameter.element_size()


def stored_as(parameter: "torch.Tensor", read: "Callable[[], torch.Tensor]") -> None:
    """Let a quantised weight know how to read the tensor that it was made from, which its fingerprint is of."""
    parameter.read_stored = read  # type: ignore[attr-defined]


@contextlib.contextmanager
def real_tensors() -> Iterator[None]:
    """Inside, tensors are real even while a model is planned: for those whose values decide a shape."""
    import torch
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    with unset_fake_temporarily(), torch.device("cpu"):
        yield


def is_folder_name(source: str) -> bool:
    """Whether a source of weights is a folder: it is there, or can be no name of a hub repository, NAME or OWNER/NAME."""
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or Path(source).is_dir()


def canonical_name(name: str) -> str:
    """The name that a weight has without the parametrization, or peft's layer, that an adapter put around it."""
    return re.sub(r"\.parametrizations\.(\w+)\.original$", r".\1", name).replace(".base_layer.", ".")


def fingerprint_of(weights: "Iterable[tuple[str, torch.Tensor]]") -> str:
    """sha256 over the plain names, shapes and float32 bytes of named weights, in the order of their names.

    Of a quantised weight it takes the stored tensor, so that a base has one fingerprint however it is loaded.
    """
    digest = hashlib.sha256()
    for name, value in sorted(((canonical_name(name), value) for name, value in weights), key=lambda item: item[0]):
        value = getattr(value, "read_stored", lambda value=value: value)()
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
