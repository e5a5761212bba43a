"""Precision of a frozen base and of the weights that are trained on it.

The base keeps its stored precision, or the one it is cast to; trained weights are float32 whatever the base's precision, since
a bfloat16 weight loses updates smaller than 1/256 of itself. Autocast reconciles the two.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

HALF = (torch.float16, torch.bfloat16)
"""Precisions of two bytes."""
BasePrecision = Literal["fp32", "bf16", "fp16"]
"""Precision of a frozen base in memory."""


def base_dtype(parameters: Iterable[nn.Parameter]) -> torch.dtype:
    """The precision of most frozen floating-point numbers; float32 where nothing is frozen."""
    numbers: Counter[torch.dtype] = Counter()
    for parameter in parameters:
        if not parameter.requires_grad and parameter.is_floating_point():
            numbers[parameter.dtype] += parameter.numel()
    return numbers.most_common(1)[0][0] if numbers else torch.float32


@contextmanager
def autocast_to(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Autocast to ``dtype`` if it has two bytes, else as the caller does; new tensors are float32 in any case."""
    default = torch.get_default_dtype()
    half = dtype in HALF and device.type != "meta"
    torch.set_default_dtype(torch.float32)
    try:
        with torch.autocast(device.type, dtype=dtype) if half else nullcontext():
            yield
    finally:
        torch.set_default_dtype(default)


@contextmanager
def float32_attention() -> Iterator[None]:
    """On CPUs, autocast leaves attention in float32: torch's flash attention is up to ten times as slow backwards in bfloat16."""

    def attention(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        *arguments: Any,
        **options: Any,
    ) -> torch.Tensor:
        mask = attn_mask.float() if attn_mask is not None and attn_mask.is_floating_point() else attn_mask
        with torch.autocast("cpu", enabled=False):
            attended = functional.scaled_dot_product_attention(
                query.float(), key.float(), value.float(), mask, *arguments, **options
            )
        return attended.to(torch.get_autocast_dtype("cpu"))

    library = torch.library.Library("aten", "IMPL")
    library.impl("scaled_dot_product_attention", attention, "AutocastCPU")
    try:
        yield
    finally:
        library._destroy()


def dtype_of(name: str | None) -> torch.dtype | None:
    """The two-byte precision of a name such as Lightning's "bf16-mixed" or our "bf16"; None for any other."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "16": torch.float16}.get(str(name).split("-")[0])


def cast_base(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast frozen floating-point weights in place; trained ones become float32.

    Buffers and batch norm keep their precision: two bytes are too few for running means, rotary frequencies and positions.
    Weights that share memory continue to share it.
    """
    cast: dict[int, torch.Tensor] = {}
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            continue
        for parameter in part.parameters(recurse=False):
            target = torch.float32 if parameter.requires_grad else dtype
            if parameter.is_floating_point() and parameter.dtype != target:
                key = parameter.data_ptr()
                parameter.data = cast.setdefault(key, parameter.data.to(target)) if key else parameter.data.to(target)
