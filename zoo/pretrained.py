"""Weights that training starts from: their names, their fingerprint, and whether they are wanted at all."""

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_WITHOUT_WEIGHTS: ContextVar[bool] = ContextVar("without_weights", default=False)


@contextlib.contextmanager
def without_weights() -> Iterator[None]:
    """Inside, models are built at their full size but no pretrained weights are looked for (``zoo plan``)."""
    token = _WITHOUT_WEIGHTS.set(True)
    try:
        yield
    finally:
        _WITHOUT_WEIGHTS.reset(token)


def weights_wanted() -> bool:
    """False inside :func:`without_weights`."""
    return not _WITHOUT_WEIGHTS.get()


@contextlib.contextmanager
def real_tensors() -> Iterator[None]:
    """Inside, tensors are real even while a model is planned: for those whose values decide a shape."""
    import torch
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    with unset_fake_temporarily(), torch.device("cpu"):
        yield


def plain_name(name: str) -> str:
    """The name that a weight has without the parametrization, or peft's layer, that an adapter put around it."""
    return re.sub(r"\.parametrizations\.(\w+)\.original$", r".\1", name).replace(".base_layer.", ".")


def fingerprint_of(weights: "Iterable[tuple[str, torch.Tensor]]") -> str:
    """sha256 over the plain names, shapes and float32 bytes of named weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, value in sorted(((plain_name(name), value) for name, value in weights), key=lambda item: item[0]):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
