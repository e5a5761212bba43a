"""torch's optimizers and learning-rate schedules, as components of recipes."""

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Annotated, Literal

from annotated_types import Interval, Len
from torch import nn, optim

from zoo.errors import ZooWarning
from zoo.ranges import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from zoo.registry import Injected, register

Parameters = Annotated[Iterable[nn.Parameter], Injected]
Betas = Annotated[list[Annotated[float, Interval(ge=0, lt=1)]], Len(2, 2)]


@register("optimizer", "adamw")
def adamw(
    params: Parameters,
    lr: NonNegativeFloat = 1e-3,
    betas: Betas | None = None,
    weight_decay: NonNegativeFloat = 0.01,
    eps: PositiveFloat = 1e-8,
) -> optim.Optimizer:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101); vectors (biases, norms) and scalars are not decayed.

    Args:
        params: that train.
        lr: learning rate.
        betas: decay of the running means of the gradient and of its square; 0.9 and 0.999 if None.
        weight_decay: decoupled, in units of the learning rate.
        eps: added to the root of the mean square, so that nothing is divided by zero.
    """
    params = list(params)
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    first, second = betas or (0.9, 0.999)
    return optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=(first, second), eps=eps)


@register("optimizer", "adam")
def adam(
    params: Parameters, lr: NonNegativeFloat = 1e-3, betas: Betas | None = None, weight_decay: NonNegativeFloat = 0.0
) -> optim.Optimizer:
    """Adam (Kingma and Ba, arXiv 1412.6980), its weight decay part of the gradient, of all parameters.

    Args:
        params: that train.
        lr: learning rate.
        betas: decay of the running means of the gradient and of its square; 0.9 and 0.999 if None.
        weight_decay: L2 penalty.
    """
    first, second = betas or (0.9, 0.999)
    return optim.Adam(params, lr=lr, betas=(first, second), weight_decay=weight_decay)


@register("optimizer", "sgd")
def sgd(
    params: Parameters, lr: NonNegativeFloat = 0.002, momentum: Fraction = 0.9, weight_decay: NonNegativeFloat = 5e-4
) -> optim.Optimizer:
    """Stochastic gradient descent with momentum; the defaults are CoOp's (Zhou et al., arXiv 2109.01134).

    Args:
        params: that train.
        lr: learning rate.
        momentum: of the gradients.
        weight_decay: L2 penalty.
    """
    return optim.SGD(params, lr=lr, momentum=momentum, weight_decay=weight_decay)


Optimizer = Annotated[optim.Optimizer, Injected]
TotalSteps = Annotated[NonNegativeInt, Injected]
EpochSteps = Annotated[PositiveInt, Injected]


def _decaying(
    optimizer: optim.Optimizer, total_steps: int, warmup_steps: int, floor: float, *, cosine: bool
) -> optim.lr_scheduler.LRScheduler:
    if 0 < total_steps <= warmup_steps:
        warnings.warn(
            f"the learning rate rises over {warmup_steps} steps, and this training has {total_steps}: its decay never begins; "
            "set scheduler.warmup_steps, or train longer",
            ZooWarning,
            stacklevel=2,
        )
    return _with_warmup(optimizer, warmup_steps, Decay(total_steps - warmup_steps, floor, cosine=cosine))


def _with_warmup(optimizer: optim.Optimizer, warmup_steps: int, decay: "Decay") -> optim.lr_scheduler.LRScheduler:
    def factor(step: int) -> float:
        return (step + 1) / warmup_steps if step < warmup_steps else decay(step - warmup_steps)

    return optim.lr_scheduler.LambdaLR(optimizer, factor)


class Decay:
    """A factor that decays from 1 to ``floor`` over ``steps`` steps, linearly or along half a cosine."""

    def __init__(self, steps: int, floor: float, *, cosine: bool) -> None:
        """Set the length and shape."""
        self.steps, self.floor, self.cosine = max(steps, 1), floor, cosine

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        progress = min(step / self.steps, 1.0)
        factor = (1 + math.cos(math.pi * progress)) / 2 if self.cosine else 1 - progress
        return self.floor + (1 - self.floor) * factor


@register("scheduler", "cosine")
def cosine(
    optimizer: Optimizer, total_steps: TotalSteps, warmup_steps: NonNegativeInt = 0, floor: Fraction = 0.0
) -> optim.lr_scheduler.LRScheduler:
    """Linear warm-up, then cosine decay to ``floor`` times the learning rate at the last step (arXiv 1608.03983).

    Args:
        optimizer: whose learning rate is scheduled.
        total_steps: of the training.
        warmup_steps: over which the learning rate rises.
        floor: share of the learning rate that is left at the end.
    """
    return _decaying(optimizer, total_steps, warmup_steps, floor, cosine=True)


@register("scheduler", "linear")
def linear(
    optimizer: Optimizer, total_steps: TotalSteps, warmup_steps: NonNegativeInt = 0, floor: Fraction = 0.0
) -> optim.lr_scheduler.LRScheduler:
    """Linear warm-up, then linear decay to ``floor`` times the learning rate at the last step.

    Args:
        optimizer: whose learning rate is scheduled.
        total_steps: of the training.
        warmup_steps: over which the learning rate rises.
        floor: share of the learning rate that is left at the end.
    """
    return _decaying(optimizer, total_steps, warmup_steps, floor, cosine=False)


@register("scheduler", "constant")
def constant(optimizer: Optimizer, warmup_steps: NonNegativeInt = 0) -> optim.lr_scheduler.LRScheduler:
    """Linear warm-up, then the full learning rate.

    Args:
        optimizer: whose learning rate is scheduled.
        warmup_steps: over which the learning rate rises.
    """
    return _with_warmup(optimizer, warmup_steps, Decay(1, 1.0, cosine=False))


@register("scheduler", "held_cosine")
def held_cosine(
    optimizer: Optimizer,
    total_steps: TotalSteps,
    epoch_steps: EpochSteps,
    warmup: NonNegativeInt = 1,
    warmup_lr: NonNegativeFloat = 1e-5,
    unit: Literal["epoch", "step"] = "epoch",
    period: PositiveInt | None = None,
) -> optim.lr_scheduler.LRScheduler:
    """A constant warm-up, then half a cosine, the rate held through each epoch: the schedule of Dassl, which CoOp trains with.

    In unit u (from 0) the rate is ``warmup_lr`` if ``u < warmup``, else ``lr (1 + cos(pi (u - warmup) / period)) / 2``. It rises
    again after a period.

    Args:
        optimizer: whose learning rate is scheduled.
        total_steps: of the training.
        epoch_steps: steps of an epoch.
        warmup: units with ``warmup_lr``.
        warmup_lr: learning rate of the warm-up, not relative to ``lr``.
        unit: whether the rate changes with each epoch or with each step.
        period: units from the full rate to none; as many as the training has if None, those of the warm-up counted too.
    """
    steps = epoch_steps if unit == "epoch" else 1
    length = period or max(math.ceil(total_steps / steps), 1)

    def factor_of(lr: float) -> Callable[[int], float]:
        def factor(step: int) -> float:
            place = step // steps - warmup
            return warmup_lr / lr if place < 0 else (1 + math.cos(math.pi * place / length)) / 2

        return factor

    rates = [float(group["lr"]) or 1.0 for group in optimizer.param_groups]
    return optim.lr_scheduler.LambdaLR(optimizer, [factor_of(rate) for rate in rates])
