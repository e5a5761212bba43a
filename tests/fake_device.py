"""A CUDA device that is not there: finds a mix of devices on a machine without a GPU, with real values.

Inside :func:`fake_cuda` a tensor that is made on, or moved to, "cuda" is an ordinary CPU tensor whose storage carries a mark.
It says that it is on cuda:0, and what a real CUDA tensor refuses it refuses with the same kind of error: operands on both
devices, a CPU generator, conversion to numpy. The mark is the storage's, as a device is, so views, parameters, ``.data`` and
``detach`` share it; everything computed from a marked tensor is marked.

What is not imitated: ``torch.cuda.is_available()`` stays False; the backward pass itself, and what third parties compute in C++
or under DisableTorchFunction, is not checked; autocast to CUDA is autocast of the CPU, whose lists of operators differ a little.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn
from torch._C import _functorch
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda", 0)
_MARK = "_on_fake_cuda"
_Tensor = torch.Tensor


@contextlib.contextmanager
def fake_cuda() -> Iterator[torch.device]:
    """Inside, "cuda" is a device; gives ``cuda:0``. Marks mean nothing outside."""
    with contextlib.ExitStack() as stack:
        for owner, name, new in _patches():
            stack.enter_context(patch.object(owner, name, new))
        stack.enter_context(_FakeCuda())
        yield CUDA


KINDS = [
    "fake",
    pytest.param(
        "real", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
    ),
]
"""To parametrize a test by: the fake device everywhere, and a real one where there is one (``pytest -m gpu``)."""


@contextlib.contextmanager
def cuda(kind: str) -> Iterator[torch.device]:
    """The device of a kind of :data:`KINDS`."""
    with fake_cuda() if kind == "fake" else contextlib.nullcontext():
        yield CUDA


def to_fake_cuda(module: nn.Module) -> nn.Module:
    """Move a module inside :func:`fake_cuda`; what it holds outside of parameters and buffers stays where it is."""
    return module.to(CUDA)


def is_marked(tensor: torch.Tensor) -> bool:
    """Whether a tensor counts as on the GPU; to be asked outside of the mode (inside, ``tensor.is_cuda`` says it)."""
    return getattr(_storage(tensor), _MARK, False)


def _storage(tensor: torch.Tensor) -> Any:
    """The storage that holds the values; None for a tensor without one (meta, sparse)."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    try:
        return None if tensor.is_meta else tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


def _mark(tensor: torch.Tensor) -> torch.Tensor:
    storage = _storage(tensor)
    if storage is not None:
        setattr(storage, _MARK, True)
    return tensor


def _names_cuda(device: Any) -> bool:
    """Whether a ``device=`` argument means the GPU; an index alone does."""
    if device is None or isinstance(device, bool):
        return False
    return isinstance(device, int) or torch.device(device).type == "cuda"


def _within(value: Any) -> Iterator[Any]:
    """Tensors and generators in nested arguments or results."""
    if isinstance(value, torch.Tensor | torch.Generator):
        yield value
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _within(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _within(item)


def _tensors(value: Any) -> list[torch.Tensor]:
    return [item for item in _within(value) if isinstance(item, torch.Tensor)]


def _described(tensors: list[torch.Tensor]) -> str:
    return ", ".join(f"{'cuda:0' if is_marked(t) else 'cpu'} {tuple(t.shape)}" for t in tensors)


def _mixed(name: str, tensors: list[torch.Tensor]) -> RuntimeError:
    return RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
        f"(when checking arguments of {name}: {_described(tensors)})"
    )


def _relocated(tensor: torch.Tensor, cuda: bool, **options: Any) -> torch.Tensor:
    """``Tensor.to`` another device: always a copy, as between real ones; otherwise the tensor itself where nothing changes."""
    if cuda != is_marked(tensor):
        options["copy"] = True
    moved = tensor.to(**{**options, "dtype": options.get("dtype") or tensor.dtype})
    return _mark(moved) if cuda else moved


class _FakeCuda(TorchFunctionMode):
    """Answers for marked tensors, checks operands, and marks results."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        special = _SPECIAL.get(func)
        if special is not None:
            return special(func, *args, **kwargs)
        if getattr(func, "__name__", "") in ("__get__", "_parse_to"):  # which only reads its arguments
            return func(*args, **kwargs)
        return _computed(func, args, kwargs)


def _computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation: its operands checked, its result where they are, or where ``device=`` says."""
    operands = [tensor for tensor in _tensors((args, kwargs)) if not tensor.is_meta]
    here = [tensor for tensor in operands if not is_marked(tensor)]
    mixed = 0 < len(here) < len(operands) and func not in _UNCHECKED
    if mixed and (func in _NO_SCALARS or any(tensor.ndim for tensor in here)):
        raise _mixed(getattr(func, "__name__", str(func)), operands)
    cuda = len(here) < len(operands)
    if kwargs.get("device") is not None:
        cuda = _names_cuda(kwargs["device"])
        kwargs["device"] = "cpu" if cuda else kwargs["device"]
    _check_generators((args, kwargs), cuda)
    result = func(*args, **kwargs)
    inputs = {id(_storage(tensor)) for tensor in here}
    for tensor in _tensors(result) if cuda else []:
        if id(_storage(tensor)) not in inputs:  # a view of a number on the CPU stays there
            _mark(tensor)
    return result


def _check_generators(arguments: Any, cuda: bool) -> None:
    for item in _within(arguments):
        if isinstance(item, torch.Generator) and getattr(item, "on_cuda", False) != cuda:
            expected, actual = ("cuda", "cpu") if cuda else ("cpu", "cuda")
            raise RuntimeError(f"Expected a '{expected}' device type for generator but found '{actual}'")


# What is answered or done otherwise than by computing.


def _device(func: Any, tensor: torch.Tensor) -> torch.device:
    return CUDA if is_marked(tensor) else func(tensor)


def _is_cpu(func: Any, tensor: torch.Tensor) -> bool:
    return not is_marked(tensor) and func(tensor)


def _get_device(func: Any, tensor: torch.Tensor) -> int:
    return 0 if is_marked(tensor) else func(tensor)


def _grad(func: Any, tensor: torch.Tensor) -> torch.Tensor | None:
    """The backward pass made it without the mode."""
    grad = func(tensor)
    return _mark(grad) if grad is not None and is_marked(tensor) else grad


def _to(func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    first = args[0] if args else None
    if isinstance(first, torch.dtype):
        names = ("dtype", "non_blocking", "copy")
    elif isinstance(first, torch.Tensor):
        names = ("other", "non_blocking", "copy")
    else:
        names = ("device", "dtype", "non_blocking", "copy")
    options = dict(zip(names, args, strict=False)) | kwargs
    other = options.pop("other", None)
    if other is not None:
        options["dtype"] = other.dtype
        return _relocated(tensor, is_marked(other), **options)
    device = options.pop("device", None)
    if device is not None and not _names_cuda(device) and torch.device(device).type != "cpu":
        return func(tensor, device=device, **options)
    return _relocated(tensor, is_marked(tensor) if device is None else _names_cuda(device), **options)


def _cuda(
    func: Any, tensor: torch.Tensor, device: Any = None, non_blocking: bool = False, **options: Any
) -> torch.Tensor:
    return _relocated(tensor, True, **options)


def _cpu(func: Any, tensor: torch.Tensor, **options: Any) -> torch.Tensor:
    return _relocated(tensor, False, **options)


def _type_as(func: Any, tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return _relocated(tensor, is_marked(other), dtype=other.dtype)


def _numpy(func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    if is_marked(tensor) and not kwargs.get("force"):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
        )
    return func(tensor, *args, **kwargs)


def _from_data(func: Any, data: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """torch.tensor and its like: values of a list are fetched from wherever they are."""
    device = kwargs.get("device")
    on_gpu = isinstance(data, torch.Tensor) and is_marked(data)
    cuda = on_gpu if device is None else _names_cuda(device)
    result = func(data, *args, **{**kwargs, **({"device": "cpu"} if cuda else {})})
    if isinstance(data, torch.Tensor) and _storage(result) is _storage(data) and cuda != on_gpu:
        result = result.clone()
    return _mark(result) if cuda else result


def _check_indices(tensor: torch.Tensor, index: Any) -> None:
    """Indices may be on the CPU or beside the tensor; a number on the GPU is fetched."""
    if not is_marked(tensor) and any(is_marked(t) and t.ndim for t in _tensors(index)):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")


def _getitem(func: Any, tensor: torch.Tensor, index: Any) -> torch.Tensor:
    _check_indices(tensor, index)
    selected = func(tensor, index)
    return _mark(selected) if is_marked(tensor) else selected


def _setitem(func: Any, tensor: torch.Tensor, index: Any, value: Any) -> None:
    """A slice is copied to, from anywhere; values for indices must be where the tensor is, but for a single number."""
    _check_indices(tensor, index)
    parts = index if isinstance(index, tuple) else (index,)
    by_index = any(isinstance(part, list) or (isinstance(part, torch.Tensor) and part.ndim) for part in parts)
    if by_index and isinstance(value, torch.Tensor) and value.ndim and is_marked(value) != is_marked(tensor):
        raise _mixed("__setitem__", [tensor, value])
    func(tensor, index, value)


def _index_put(func: Any, tensor: torch.Tensor, indices: Any, values: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    _check_indices(tensor, indices)
    if values.ndim and is_marked(values) != is_marked(tensor):
        raise _mixed("index_put", [tensor, values])
    result = func(tensor, indices, values, **kwargs)
    return _mark(result) if is_marked(tensor) else result


def _like_self(func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The other tensor gives values (copied) or a shape; it may be anywhere."""
    result = func(tensor, *args, **kwargs)
    return _mark(result) if is_marked(tensor) else result


def _autograd_grad(func: Any, outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    grads = func(outputs, inputs, *args, **kwargs)
    of = [inputs] if isinstance(inputs, torch.Tensor) else inputs
    for grad, tensor in zip(grads, of, strict=True):
        if grad is not None and is_marked(tensor):
            _mark(grad)
    return grads


_SPECIAL: dict[Any, Callable[..., Any]] = {
    _Tensor.device.__get__: _device,
    _Tensor.is_cuda.__get__: lambda func, tensor: is_marked(tensor),
    _Tensor.is_cpu.__get__: _is_cpu,
    _Tensor.grad.__get__: _grad,
    _Tensor.get_device: _get_device,
    _Tensor.to: _to,
    _Tensor.cuda: _cuda,
    _Tensor.cpu: _cpu,
    _Tensor.type_as: _type_as,
    _Tensor.numpy: _numpy,
    _Tensor.__array__: _numpy,
    _Tensor.__getitem__: _getitem,
    _Tensor.__setitem__: _setitem,
    **dict.fromkeys((_Tensor.index_put, _Tensor.index_put_, torch.index_put, torch.index_put_), _index_put),
    **dict.fromkeys((torch.tensor, torch.as_tensor, torch.asarray), _from_data),
    **dict.fromkeys(
        (_Tensor.copy_, _Tensor.expand_as, _Tensor.view_as, _Tensor.reshape_as, _Tensor.__deepcopy__), _like_self
    ),
    torch.autograd.grad: _autograd_grad,
}
_UNCHECKED = {
    _Tensor.data.__set__,
    _Tensor.backward,
    torch.autograd.backward,
    torch.result_type,
    torch._has_compatible_shallow_copy_type,
    torch.is_same_size,
    torch.tensor_split,
    _Tensor.tensor_split,
}
"""Of tensors on any devices."""
_NO_SCALARS = {
    torch.cat,
    torch.concat,
    torch.concatenate,
    torch.stack,
    torch.hstack,
    torch.vstack,
    torch.dstack,
    torch.column_stack,
}
"""Where a number on the CPU is not taken either."""


class _Generator(torch.Generator):
    """torch.Generator that can be the GPU's."""

    on_cuda: bool

    def __new__(cls, device: Any = "cpu") -> "_Generator":
        result = super().__new__(cls, "cpu" if _names_cuda(device) else device)
        result.on_cuda = _names_cuda(device)
        return result

    @property
    def device(self) -> torch.device:
        return CUDA if self.on_cuda else torch.device("cpu")


class _SafeOpen:
    """safetensors' safe_open for the device "cuda"."""

    def __init__(self, file: Any, framework: str = "pt", device: Any = "cpu", **options: Any) -> None:
        self._cuda = _names_cuda(device)
        self._file = _SAFE_OPEN(file, framework, "cpu" if self._cuda else device, **options)

    def __enter__(self) -> "_SafeOpen":
        self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)

    def get_tensor(self, name: str) -> torch.Tensor:
        tensor = self._file.get_tensor(name)
        return tensor.to(CUDA) if self._cuda else tensor

    def get_tensors(self) -> dict[str, torch.Tensor]:
        return {name: self.get_tensor(name) for name in self._file.keys()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


_SAFE_OPEN = safetensors.safe_open
_AUTOCAST_INIT = torch.amp.autocast_mode.autocast.__init__
_AUTOCAST_ENABLED = torch.is_autocast_enabled


def _autocast_init(self: Any, device_type: str, dtype: Any = None, *args: Any, **kwargs: Any) -> None:
    """Autocast of the CPU, to the type that CUDA's would take."""
    if device_type == "cuda":
        device_type, dtype = "cpu", dtype or torch.get_autocast_dtype("cuda")
    _AUTOCAST_INIT(self, device_type, dtype, *args, **kwargs)


def _autocast_enabled(device_type: str = "cuda") -> bool:
    return _AUTOCAST_ENABLED("cpu" if device_type == "cuda" else device_type)


def _patches() -> list[tuple[Any, str, Any]]:
    return [
        (torch, "Generator", _Generator),
        (torch.amp.autocast_mode.autocast, "__init__", _autocast_init),
        (torch, "is_autocast_enabled", _autocast_enabled),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "set_device", lambda device: None),
        (torch.cuda, "synchronize", lambda device=None: None),
        (safetensors, "safe_open", _SafeOpen),
        (safetensors.torch, "safe_open", _SafeOpen),
    ]
