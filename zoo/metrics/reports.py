"""Report metrics as columns of numbers, one row a sample, so that any of them can be resampled for intervals.

BLEU and ROUGE-L are torchmetrics', CIDEr is pycocoevalcap's; RadGraph F1 and CheXbert F1 come from their own packages
where the user has them with their weights.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from zoo.data.chest_drr.text.labels import LABELS
from zoo.data.traces.records import Box
from zoo.data.vocabulary import Label
from zoo.errors import ZooError

External = Literal["radgraph", "chexbert"]
Outputs = dict[str, torch.Tensor]


class MissingMetricError(ZooError, RuntimeError):
    """A metric whose package or weights are not here."""


def tokenized(report: str) -> str:
    """A report in lower case with spaces about its marks, as report metrics are measured on."""
    return " ".join(re.findall(r"\w+|[^\w\s]", report.lower()))


def bleu_columns(reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
    """What corpus BLEU-4 (Papineni et al., 2002) is made of, a row a report: (n, 10).

    Matching and all n-grams for n = 1..4, length of the report, length of the reference.
    """
    from torchmetrics.text import BLEUScore

    rows = []
    for report, reference in zip(reports, references, strict=True):
        metric = BLEUScore(n_gram=4)
        metric.update([tokenized(report)], [[tokenized(reference)]])
        lengths = torch.stack([metric.preds_len, metric.target_len])
        rows.append(torch.cat([metric.numerator, metric.denominator, lengths]))
    return torch.stack(rows)


def corpus_bleu(columns: torch.Tensor) -> float:
    """Corpus BLEU-4 in [0, 1] from rows of :func:`bleu_columns`."""
    from torchmetrics.text import BLEUScore

    metric = BLEUScore(n_gram=4)
    sums = columns.sum(dim=0)
    metric.numerator, metric.denominator = sums[:4], sums[4:8]
    metric.preds_len, metric.target_len = sums[8], sums[9]
    metric._update_count = 1  # the sums are what updates would have left
    return float(metric.compute())


def rouge_l(reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
    """ROUGE-L F (Lin, 2004) of each report (n)."""
    from torchmetrics.functional.text import rouge_score

    scores = [
        rouge_score(tokenized(report), tokenized(reference), rouge_keys="rougeL")["rougeL_fmeasure"]
        for report, reference in zip(reports, references, strict=True)
    ]
    return torch.stack([torch.as_tensor(score) for score in scores])


def cider(reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
    """CIDEr (Vedantam et al., arXiv 1411.5726) of each report (n); document frequencies are those of all references.

    Raises:
        MissingMetricError: pycocoevalcap is not installed.
    """
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError as error:
        raise MissingMetricError("CIDEr needs pycocoevalcap: pip install 'medvl-zoo[reports]'") from error

    wanted = {index: [tokenized(text)] for index, text in enumerate(references)}
    made = {index: [tokenized(text)] for index, text in enumerate(reports)}
    _, scores = Cider().compute_score(wanted, made)
    return torch.tensor(scores, dtype=torch.float32)


def label_rows(found: Sequence[set[Label]]) -> torch.Tensor:
    """Sets of findings as rows of 0 and 1 over :data:`~zoo.data.chest_drr.text.labels.LABELS`: (n, labels)."""
    return torch.tensor([[int(label in labels) for label in LABELS] for labels in found])


def f1(stated: torch.Tensor, truth: torch.Tensor) -> float:
    """Micro F1 over findings and sides, from rows of 0 and 1 (n, labels); 1 where there is nothing and nothing is said."""
    both, either = (stated & truth).sum(), stated.sum() + truth.sum()
    return float(2 * both / either) if either else 1.0


def macro_f1(stated: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean over the labels that occur of each one's F1."""
    occurring = [index for index in range(truth.shape[1]) if truth[:, index].any()]
    scores = [f1(stated[:, index], truth[:, index]) for index in occurring]
    return sum(scores) / len(scores) if scores else float("nan")


def box_iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    from torchvision.ops import box_iou as pairwise

    return float(pairwise(torch.tensor([one], dtype=torch.float32), torch.tensor([other], dtype=torch.float32)))


def external_scores(name: External, reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
    """RadGraph F1 (partial reward) or CheXbert's agreement of each report (n), through their own packages.

    Raises:
        MissingMetricError: the package is not installed.
    """
    return _EXTERNAL[name](reports, references)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingMetricError(
            f"the metric needs the package '{name}': pip install {name}; it downloads weights under its own licence"
        ) from error


def _radgraph(reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
    scorer = _package("radgraph").F1RadGraph(reward_level="partial")
    _, rewards, *_ = scorer(hyps=list(reports), refs=list(references))
    return torch.tensor(rewards, dtype=torch.float32)


def _chexbert(reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
    scorer = _package("f1chexbert").F1CheXbert()
    rows = [[scorer.get_label(text) for text in texts] for texts in (reports, references)]
    made, wanted = (torch.tensor(row) > 0 for row in rows)
    return torch.tensor([f1(a[None].int(), b[None].int()) for a, b in zip(made, wanted, strict=True)])


_EXTERNAL: dict[str, Callable[[Sequence[str], Sequence[str]], torch.Tensor]] = {
    "radgraph": _radgraph,
    "chexbert": _chexbert,
}
