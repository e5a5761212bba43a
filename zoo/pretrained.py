"""Weights that training starts from: their names, their fingerprint, and whether they are loaded at all."""

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
"""Assumptions about weights that are not loaded; None where weights are loaded."""


@contextlib.contextmanager
def without_weights() -> Iterator[list[str]]:
    """Inside, models are built at full size without loading pretrained weights (``zoo plan``).

    Yields the list of assumptions about these weights, which models add to by :func:`assume`.
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


def assume(assumption: str) -> None:
    """Record an assumption of a model built :func:`without_weights` about its weights."""
    assumed = _ASSUMED.get()
    if assumed is not None:
        assumed.append(assumption)


def mark_quantized(parameter: "torch.Tensor", quantization: str) -> None:
    """Mark a planned weight as quantised ("nf4" or "int8")."""
    parameter.quantization = quantization  # type: ignore[attr-defined]


def stored_bytes(parameter: "torch.Tensor") -> float:
    """Bytes of a weight in memory, quantised or not.

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
    """Attach to a quantised weight a reader of its stored tensor, which its fingerprint is computed from."""
    parameter.read_stored = read  # type: ignore[attr-defined]


@contextlib.contextmanager
def real_tensors() -> Iterator[None]:
    """Inside, tensors are real even while a model is planned on fake ones; for tensors whose values decide a shape."""
    import torch
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    with unset_fake_temporarily(), torch.device("cpu"):
        yield


def is_folder_name(source: str) -> bool:
    """Whether a source of weights is a folder: it exists, or is not a valid name of a hub repository, NAME or OWNER/NAME."""
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or Path(source).is_dir()


def canonical_name(name: str) -> str:
    """The name of a weight without the parametrization, or peft's layer, that an adapter wrapped around it."""
    return re.sub(r"\.parametrizations\.(\w+)\.original$", r".\1", name).replace(".base_layer.", ".")


def fingerprint_of(weights: "Iterable[tuple[str, torch.Tensor]]") -> str:
    """sha256 over the plain names, shapes and float32 bytes of named weights, in the order of their names.

    For a quantised weight the stored tensor is hashed, so that a base has one fingerprint however it is loaded.
    """
    digest = hashlib.sha256()
    for name, value in sorted(((canonical_name(name), value) for name, value in weights), key=lambda item: item[0]):
        value = getattr(value, "read_stored", lambda value=value: value)()
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
