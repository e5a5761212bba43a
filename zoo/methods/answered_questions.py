"""Questions answered with masks: rejection of what is absent, and evaluation, one row for each question."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from zoo.constants import IGNORE_INDEX
from zoo.data.conversations.records import REJ, SEG, VETO, Turn, with_rejection, without_rejection
from zoo.data.vocabulary import FindingVocabulary, ReportLabeler
from zoo.language.global_context import Answer, ChatTurn
from zoo.methods.base import Metric, Outputs
from zoo.methods.distributed import index_of_rows
from zoo.metrics.answers import PARTS, answer_row
from zoo.metrics.segmentation import ciou, dice, giou, giou_by_target, giou_where, question_row, target_index
from zoo.metrics.surfaces import Spacing, surface_metrics, surface_row

KINDS = ("explicit", "implicit", "several", "absent", "other_side", "everything", "listed", "")
"""Kinds of question; "" where a dataset gives none."""
Question = tuple[torch.Tensor, list[ChatTurn], Turn, torch.Tensor]
"""Image, conversation up to the question, the turn, and the masks (n, height, width) of its answer."""


def confirm(answer: Answer, masks: torch.Tensor, threshold: float) -> tuple[Answer, torch.Tensor]:
    """An answer without the ``[SEG]`` whose mask is empty or whose presence is below a threshold; their masks are left out.

    In the text, :data:`~zoo.data.conversations.records.VETO` takes their place.

    Args:
        answer: generated.
        masks: (n, height, width) of 0 and 1, one for each ``[SEG]``.
        threshold: of ``answer.presence``, if there is one.
    """
    kept = masks.flatten(1).any(dim=1)
    if answer.presence is not None:
        kept &= (answer.presence >= threshold).to(kept.device)
    first, *parts = answer.text.split(SEG)
    # More parts than masks: the model has spelt a "[SEG]" out of other tokens.
    marks = [SEG if keep else VETO for keep in kept.tolist()] + [SEG] * (len(parts) - len(kept))
    text = first + "".join(mark + part for mark, part in zip(marks, parts, strict=False))
    (indices,) = kept.nonzero(as_tuple=True)
    on_device = indices.to(answer.seg_hidden_states.device)
    presence = None if answer.presence is None else answer.presence[on_device]
    states = answer.seg_hidden_states[on_device]
    return replace(answer, text=text, seg_hidden_states=states, presence=presence), masks[indices]


def without_last_answer(labels: list[int]) -> list[int]:
    """Labels of a conversation in which the last answer, its last run of labels, is not learned."""
    start = len(labels)
    while start and labels[start - 1] != IGNORE_INDEX:
        start -= 1
    return [*labels[:start], *[IGNORE_INDEX] * (len(labels) - start)]


def questions_of(batch: Mapping[str, Any]) -> list[Question]:
    """Every question of a batch of conversations, after the true answers to the earlier ones; not those answered wrongly."""
    questions: list[Question] = []
    for image, turns, masks in zip(batch["image"], batch["turns"], batch["masks"], strict=True):
        start = 0
        for index, turn in enumerate(turns):
            conversation: list[ChatTurn] = [(earlier.question, earlier.answer) for earlier in turns[:index]]
            end = start + len(turn.masks)
            if not turn.wrong:
                questions.append((image, [*conversation, (turn.question, None)], turn, masks[start:end]))
            start = end
    return questions


def spacings_of(batch: Mapping[str, Any]) -> list[Spacing | None]:
    """The spacing of the image of each of :func:`questions_of` a batch."""
    spacings = batch.get("spacing") or [None] * len(batch["turns"])
    turns = zip(batch["turns"], spacings, strict=True)
    return [spacing for listed, spacing in turns for turn in listed if not turn.wrong]


def question_outputs(
    batch: Mapping[str, Any],
    answers: Sequence[tuple[Answer, torch.Tensor]],
    vocabulary: FindingVocabulary,
    labeler: ReportLabeler | None,
    *,
    rejects: bool = False,
    surface_tolerance: float | None = None,
) -> Outputs:
    """One row for each question: areas, correct parts of the answer, missing and superfluous ``[SEG]``, kind of question.

    Args:
        batch: of conversations.
        answers: with masks (n, height, width), to :func:`questions_of` the batch.
        vocabulary: of the dataset.
        labeler: of the dataset.
        rejects: count ``[REJ]`` and vetoes too.
        surface_tolerance: measure outlines too, with this tolerance of the NSD.
    """
    rows = [
        (turn, target.cpu(), answer, masks)
        for (_, _, turn, target), (answer, masks) in zip(questions_of(batch), answers, strict=True)
    ]
    score = partial(answer_row, vocabulary=vocabulary, labeler=labeler)
    outputs = {
        **index_of_rows(batch, [sum(not turn.wrong for turn in turns) for turns in batch["turns"]]),
        "areas": torch.tensor([question_row(masks, target) for _, target, _, masks in rows]),
        "answers": torch.tensor([score(without_rejection(answer.text), turn.targets) for turn, _, answer, _ in rows]),
        "seg": torch.tensor([[len(target) - len(masks), len(target)] for _, target, _, masks in rows]),
        "kind": torch.tensor([KINDS.index(turn.kind) for turn, *_ in rows]),
        "target": torch.tensor([target_index(turn.targets, vocabulary) for turn, *_ in rows]),
        "ended": torch.tensor([float(answer.ended) for _, _, answer, _ in rows]),
    }
    if surface_tolerance is not None:
        outputs["surfaces"] = torch.tensor(
            [
                surface_row(masks, target, spacing, surface_tolerance)
                for (_, target, _, masks), spacing in zip(rows, spacings_of(batch), strict=True)
            ]
        )
    if rejects:
        expected = [with_rejection(turn.answer).count(REJ) for turn, *_ in rows]
        written = [answer.text.count(REJ) for _, _, answer, _ in rows]
        outputs["rej"] = torch.tensor([[a - b, a] for a, b in zip(expected, written, strict=True)])
        outputs["vetoed"] = torch.tensor([float(VETO in answer.text) for _, _, answer, _ in rows])
    return outputs


def question_metrics(
    vocabulary: FindingVocabulary, *, rejects: bool = False, surfaces: bool = False
) -> dict[str, Metric]:
    """GIoU (overall, by kind of question, by target), cIoU, Dice, HD95 and NSD, accuracy of answers, wrong numbers of ``[SEG]``, ``[REJ]``."""
    metrics: dict[str, Metric] = {
        "giou": lambda o: giou(o["areas"]),
        **{f"giou_{kind}": giou_where("kind", index) for index, kind in enumerate(KINDS[:3])},
        "absent_recognised": giou_where("kind", KINDS.index("absent")),
        "other_side_recognised": giou_where("kind", KINDS.index("other_side")),
        "giou_everything": giou_where("kind", KINDS.index("everything")),
        "ciou": lambda o: ciou(o["areas"]),
        "dice": lambda o: dice(o["areas"]),
        **giou_by_target(vocabulary),
        **{f"{part}_accuracy": partial(_accuracy_of_part, column) for column, part in enumerate(PARTS)},
        "missing_seg": lambda o: float((o["seg"][:, 0] > 0).float().mean()),
        "superfluous_seg": lambda o: float((o["seg"][:, 0] < 0).float().mean()),
    }
    metrics |= surface_metrics() if surfaces else {}
    if rejects:
        metrics |= {
            "missing_rej": lambda o: float((o["rej"][:, 0] > 0).float().mean()),
            "superfluous_rej": lambda o: float((o["rej"][:, 0] < 0).float().mean()),
            "vetoed": lambda o: float(o["vetoed"].mean()),
        }
    return metrics


def _accuracy_of_part(column: int, outputs: Outputs) -> float:
    """Accuracy over questions that ask for this part of an answer; the others are NaN."""
    return float(outputs["answers"][:, column].nanmean())
