"""LoRA's product added to the weights that it updates (arXiv 2106.09685, section 4.1), so that no layer of peft is left."""

from typing import Any

import torch
from torch import nn

from zoo.errors import UnsupportedError


@torch.no_grad()
def merge_lora(model: nn.Module) -> int:
    """Merge peft's layers, trained rows of tables included, into their bases, in place; the number of layers merged.

    Raises:
        UnsupportedError: a base is quantised, so that the product would be lost in rounding.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    wrapped: dict[str, Any] = {}
    for name, part in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in wrapped)
        if not inside and isinstance(part, BaseTunerLayer | AuxiliaryTrainingWrapper):
            wrapped[name] = part
    for name, part in wrapped.items():
        if isinstance(part, AuxiliaryTrainingWrapper):
            base = part.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
        else:
            base = part.get_base_layer()
            if not base.weight.is_floating_point():
                raise UnsupportedError(f"{name} is quantised; merge into the unquantised base (quantization=null)")
            part.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, base)
    return len(wrapped)
