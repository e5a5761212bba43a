"""Verification of a card: its metrics are evaluated again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.cards.prose import check_prose
from zoo.cards.schema import CardMetric
from zoo.cards.store import CardError, check_files, read_card
from zoo.engine.evaluation import collect, open_evaluation


@dataclass(frozen=True)
class CheckedMetric:
    """A card's metric beside the value measured now."""

    card: str
    metric: CardMetric
    measured: float

    @property
    def holds(self) -> bool:
        """Whether the two differ by no more than the card's tolerance."""
        return abs(self.measured - self.metric.value) <= self.metric.tolerance


def verify(
    name: str | Path, settings: Sequence[str] = (), *, device: str = "auto", progress: bool = True
) -> list[CheckedMetric]:
    """Check a card's files and base, and evaluate its metrics again.

    Args:
        name: of the card, or its folder.
        settings: ``key=value`` changes of its recipe, such as the folder of its data.
        device: to evaluate on.
        progress: show a progress bar.

    Raises:
        CardError: a file, the base or the README is not what the record says, or the method does not have a metric.
            Metrics beyond their tolerance are returned, not raised.
    """
    card = read_card(name)
    check_files(card)
    check_prose(card)
    evaluation = open_evaluation(card.folder, settings, device)
    metrics = evaluation.method.metrics()
    unknown = [metric.name for metric in card.record.metrics if metric.name not in metrics]
    if unknown:
        raise CardError(
            f"card '{card.name}' has metrics that {card.record.method} does not compute: {', '.join(unknown)}"
        )
    results = []
    for split in dict.fromkeys(metric.split for metric in card.record.metrics):
        outputs = collect(evaluation, split, progress=progress)
        count = len(next(iter(outputs.values())))
        for metric in card.record.metrics:
            if metric.split == split and metric.n != count:
                raise CardError(
                    f"card '{card.name}' measured {metric.name} on {metric.n} samples; the split has {count} here"
                )
            if metric.split == split:
                results.append(CheckedMetric(card.name, metric, metrics[metric.name](outputs)))
    return results


def verify_all(names: Sequence[str], settings: Sequence[str] = (), *, device: str = "auto") -> list[CheckedMetric]:
    """Verify several cards, with a bar that shows how much is measured and, once a card is, how long the rest will take.

    Raises:
        CardError: as :func:`verify`.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    cards = [read_card(name) for name in names]
    work = [max(metric.n for metric in card.record.metrics) * card.record.parameters_total for card in cards]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    checked: list[CheckedMetric] = []
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=7200) as progress:
        bar = progress.add_task("", total=sum(work))
        for number, (card, amount) in enumerate(zip(cards, work, strict=True), start=1):
            progress.update(bar, description=f"{card.name} ({number} of {len(cards)})")
            checked += verify(str(card.folder), settings, device=device, progress=False)
            progress.advance(bar, amount)
    return checked
