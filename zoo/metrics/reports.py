"""Report metrics as columns of numbers, one row per sample, so that any of them can be resampled for intervals.

BLEU and ROUGE-L are torchmetrics', CIDEr is pycocoevalcap's. Metrics that need a package or weights of their own are
registered as components (:mod:`zoo.metrics.clinical`).
"""

import re
from collections.abc import Sequence

import torch

from zoo.data.traces.records import Box
from zoo.data.vocabulary import Label, ReportLabeler
from zoo.errors import ZooError


class MissingMetricError(ZooError, RuntimeError):
    """A metric whose package is not installed."""


def tokenized(report: str) -> str:
    """A report in lower case with its words and punctuation marks separated by spaces."""
    return " ".join(re.findall(r"\w+|[^\w\s]", report.lower()))


def bleu_columns(reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
    """The counts that corpus BLEU-4 (Papineni et al., 2002) is computed from, one row per report: (n, 10).

    Matching n-grams and all n-grams for n = 1..4, length of the report, length of the reference.
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
    metric._update_count = 1  # the sums are the state after updates with all reports
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

    targets = {index: [tokenized(text)] for index, text in enumerate(references)}
    predictions = {index: [tokenized(text)] for index, text in enumerate(reports)}
    _, scores = Cider().compute_score(targets, predictions)
    return torch.tensor(scores, dtype=torch.float32)


def label_rows(stated: Sequence[set[Label]], labels: Sequence[Label]) -> torch.Tensor:
    """Sets of labels as rows of 0 and 1: (n, labels)."""
    return torch.tensor([[int(label in row) for label in labels] for row in stated])


def f1(predicted: torch.Tensor, target: torch.Tensor) -> float:
    """Micro F1 from rows of 0 and 1 (n, labels); NaN if there are no labels to find and none are predicted."""
    both, either = (predicted & target).sum(), predicted.sum() + target.sum()
    return float(2 * both / either) if either else float("nan")


def macro_f1(predicted: torch.Tensor, target: torch.Tensor) -> float:
    """Mean F1 of the labels that occur in the target; NaN if none does."""
    occurring = [index for index in range(target.shape[1]) if target[:, index].any()]
    scores = [f1(predicted[:, index], target[:, index]) for index in occurring]
    return sum(scores) / len(scores) if scores else float("nan")


def f1_of_sizes(
    predicted: torch.Tensor, target: torch.Tensor, areas: torch.Tensor, smallest: float, largest: float
) -> float:
    """Micro F1 over the findings of a range of sizes; NaN if there are none.

    As COCO's average precision by area, it ignores findings of other sizes, stated or not, and counts every finding that is stated
    and absent, which has no size.

    Args:
        predicted: 0 and 1 (n, labels).
        target: the same.
        areas: share of the image (n, labels) that each finding of ``target`` covers.
        smallest: least area of the range.
        largest: area at which the range ends.
    """
    in_range = (areas >= smallest) & (areas < largest) & (target > 0)
    if not in_range.any():
        return float("nan")
    ignored = (target > 0) & ~in_range
    return f1(predicted.masked_fill(ignored, 0), target.masked_fill(ignored, 0))


def repeats_sentence(reports: Sequence[str]) -> torch.Tensor:
    """1 for each report (n) that has a sentence more than once, else 0."""
    sentences = [
        [part.strip() for part in re.split(r"[.:](?=\s|$)|\n", report.lower()) if part.strip()] for report in reports
    ]
    return torch.tensor([float(len(set(parts)) < len(parts)) for parts in sentences])


def impression_agreement(reports: Sequence[str], labeler: ReportLabeler) -> torch.Tensor:
    """1 for each report (n) whose impression names the findings that its other text states; NaN for one without an impression."""
    scores = []
    for report in reports:
        match = re.search(r"impression:(.*?)(findings:|$)", report, re.IGNORECASE | re.DOTALL)
        if match is None:
            scores.append(float("nan"))
            continue
        rest = report[: match.start()] + report[match.end() :]
        scores.append(float(labeler.label(match.group(1)) == labeler.label(rest)))
    return torch.tensor(scores)


def box_iou(box: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    from torchvision.ops import box_iou as pairwise

    return float(pairwise(torch.tensor([box], dtype=torch.float32), torch.tensor([other], dtype=torch.float32)))
