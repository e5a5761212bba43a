"""Linear probe (Radford et al., arXiv 2103.00020): a linear classifier on frozen image features."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from zoo.adapters.few_shot import Classes, Clip, FewShotAdapter
from zoo.encoders.clip import ClipEncoder
from zoo.ranges import NonNegativeInt
from zoo.registry import register

_PENALTIES = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)
_PAPERS_PENALTY = 0.316
"""C of the paper's probes, where no validation image chooses one."""


@register("adapter", "linear_probe")
class LinearProbe(FewShotAdapter):
    """``logits = W f + b`` on unit image features f, scaled like CLIP's; ``W`` starts at zero and is trained by the optimizer."""

    class_bound = True
    reads_prompts = False

    def __init__(self, clip: Clip, classes: Classes) -> None:
        """Build a classifier.

        Args:
            clip: the frozen CLIP.
            classes: that it tells apart; their prompts are not used.
        """
        super().__init__(clip, classes)
        self.classifier = nn.Linear(clip.embedding, len(classes.names))
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        features = self.encode_images(clip, images)
        logits: torch.Tensor = self.classifier(clip.scale.detach() * features)
        return logits


@register("adapter", "logistic_probe")
class LogisticProbe(FewShotAdapter):
    """``logits = W f + b`` on unit image features f, fitted before training: the linear probe of the paper and of its peers' tables.

    Multinomial logistic regression by L-BFGS: W and b minimise ``C sum CE + |W|^2 / 2`` over the shots. The best C of 10^6, 10^4,
    ... 10^-6 on the validation images is the middle of a range from C / 10 to 10 C, which is halved ``steps`` times towards the
    better of its ends; the better end of the last range stays. As scikit-learn's solver, which the official code calls, it stops
    at a gradient of 10^-4. The recipe's optimizer has nothing to train.
    """

    class_bound = True
    observes = True
    reads_prompts = False
    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, clip: Clip, classes: Classes, steps: NonNegativeInt = 8) -> None:
        """Build; the weights are fitted when the shots are seen.

        Args:
            clip: the frozen CLIP.
            classes: that it tells apart; their prompts are not used.
            steps: of the search for C between the ends.
        """
        super().__init__(clip, classes)
        self.register_buffer("weight", torch.zeros(len(classes.names), clip.embedding))
        self.register_buffer("bias", torch.zeros(len(classes.names)))
        self.steps = steps

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        return functional.linear(self.encode_images(clip, images).float(), self.weight, self.bias)

    @torch.no_grad()
    def observe(self, clip: ClipEncoder, train: Iterable[dict[str, Any]], val: Iterable[dict[str, Any]]) -> None:
        """Fit on the training images; the validation images choose the penalty."""
        # Fitted on the CPU: not every device computes in float64.
        parts = [tensor.cpu() for split in (train, val) for tensor in self.encode_batches(clip, split)]
        fitted = self._search(parts[0].double(), parts[1], parts[2].double(), parts[3])
        self.weight.copy_(fitted[:, :-1])
        self.bias.copy_(fitted[:, -1])

    def _search(
        self, features: torch.Tensor, labels: torch.Tensor, val_features: torch.Tensor, val_labels: torch.Tensor
    ) -> torch.Tensor:
        """Weights and bias (classes, embedding + 1) of the chosen penalty."""

        def fit(penalty: float) -> tuple[float, torch.Tensor]:
            fitted = fit_logistic_regression(features, labels, len(self.bias), penalty)
            right = _logits(val_features, fitted).argmax(dim=-1) == val_labels
            return float(right.double().mean()), fitted

        if not len(val_labels):
            return fit_logistic_regression(features, labels, len(self.bias), _PAPERS_PENALTY)
        tried = [(*fit(penalty), penalty) for penalty in _PENALTIES]
        _, best, peak = max(tried, key=lambda one: one[0])  # the first of equals
        low, high = peak / 10, peak * 10
        for _ in range(self.steps):
            (accuracy, lower), (other, higher) = fit(low), fit(high)
            middle = (low * high) ** 0.5
            best = higher if accuracy < other else lower
            low, high = (middle, high) if accuracy < other else (low, middle)
        return best


def fit_logistic_regression(
    features: torch.Tensor, labels: torch.Tensor, classes: int, penalty: float, iterations: int = 1000
) -> torch.Tensor:
    """Weights and bias (classes, width + 1) that minimise ``penalty sum CE + |weights|^2 / 2``; the bias is not penalised.

    Args:
        features: (samples, width) float64.
        labels: (samples).
        classes: number of them.
        penalty: C, the inverse strength of the regularisation.
        iterations: of L-BFGS, at most.
    """
    options: dict[str, Any] = {"dtype": features.dtype, "device": features.device, "requires_grad": True}
    parameters = torch.zeros(classes, features.shape[1] + 1, **options)
    settings: dict[str, Any] = {"line_search_fn": "strong_wolfe", "tolerance_grad": 1e-4, "tolerance_change": 1e-12}
    optimizer = torch.optim.LBFGS([parameters], max_iter=iterations, history_size=10, **settings)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        decay = parameters[:, :-1].square().sum() / (2 * penalty * len(labels))
        value = functional.cross_entropy(_logits(features, parameters), labels) + decay
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return parameters.detach()


def _logits(features: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
    return functional.linear(features, parameters[:, :-1], parameters[:, -1])
