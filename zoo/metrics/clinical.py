"""Clinical report metrics from packages with weights of their own; a recipe chooses them by name.

A component of the kind ``metric`` is called with reports and references, and returns a score for each report (n).
"""

import importlib
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Protocol

import torch
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from zoo.metrics.reports import MissingMetricError, f1
from zoo.registry import UnknownComponentError, register, registry


class ReportMetric(Protocol):
    """Scores reports against references."""

    def __call__(self, reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
        """A score for each report (n)."""


def build_report_metric(name: str) -> ReportMetric:
    """The metric of this name.

    Raises:
        UnknownComponentError: there is none.
    """
    metric: ReportMetric = registry("metric").resolve(name)()
    return metric


def _check_name(name: str) -> str:
    try:
        registry("metric").target(name)
    except UnknownComponentError as error:
        raise PydanticCustomError("unknown_metric", "{message}", {"message": str(error)}) from error
    return name


ReportMetricName = Annotated[str, AfterValidator(_check_name)]
"""The name of a registered metric, as the argument of a recipe."""


@register("metric", "radgraph")
class RadGraphF1:
    """RadGraph F1 with partial reward (arXiv 2106.14463; Delbrouck et al., arXiv 2210.12186), from the package ``radgraph``."""

    def __call__(self, reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
        """A score for each report (n).

        Raises:
            MissingMetricError: the package is not installed.
        """
        _, rewards, *_ = self._scorer(hyps=list(reports), refs=list(references))
        return torch.tensor(rewards, dtype=torch.float32)

    @cached_property
    def _scorer(self) -> Any:
        return _import_package("radgraph").F1RadGraph(reward_level="partial")


@register("metric", "chexbert")
class CheXbertF1:
    """F1 over CheXbert's 14 labels (arXiv 2004.09167) of each report, from the package ``f1chexbert``."""

    def __call__(self, reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
        """A score for each report (n).

        Raises:
            MissingMetricError: the package is not installed.
        """
        predicted, target = (
            torch.tensor([self._scorer.get_label(text) for text in texts]) > 0 for texts in (reports, references)
        )
        return torch.tensor([f1(a[None].int(), b[None].int()) for a, b in zip(predicted, target, strict=True)])

    @cached_property
    def _scorer(self) -> Any:
        return _import_package("f1chexbert").F1CheXbert()


def _import_package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingMetricError(
            f"the metric needs the package '{name}': pip install {name}; it downloads weights under its own licence"
        ) from error
