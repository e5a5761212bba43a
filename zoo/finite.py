"""Numbers that are not finite: weights, losses and outputs that have them are refused where they arise.

A mask of NaN logits is empty and the class of NaN probabilities is the first, so that what is broken would read as an answer.
"""

from collections.abc import Iterable, Mapping

import torch

from zoo.errors import ZooError


class NonFiniteError(ZooError, ArithmeticError):
    """Weights, a loss or an output that is NaN or infinite."""


def check_finite(values: torch.Tensor, what: str) -> torch.Tensor:
    """The values as they are.

    Args:
        values: of any shape.
        what: they are, as the subject of a sentence in the plural.

    Raises:
        NonFiniteError: one is NaN or infinite.
    """
    if not bool(values.detach().isfinite().all()):
        raise NonFiniteError(
            f"{what} are not finite numbers; the weights are damaged, or the precision is too low for this image"
        )
    return values


def nonfinite_names(tensors: Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]]) -> list[str]:
    """Names of the tensors that hold a NaN or an infinity; of a sharded tensor, the local part counts."""
    items = tensors.items() if isinstance(tensors, Mapping) else tensors
    return [name for name, value in items if value.is_floating_point() and not bool(_local(value).isfinite().all())]


def _local(tensor: torch.Tensor) -> torch.Tensor:
    to_local = getattr(tensor.detach(), "to_local", None)
    return tensor.detach() if to_local is None else to_local()
