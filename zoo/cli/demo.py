"""``zoo demo``: the three methods on rendered radiographs, and NEARL trained beside three peers, on one page."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from zoo.cards.store import card_chain, check_files, read_card
from zoo.config.building import resolve_recipe
from zoo.data.base import ZooData
from zoo.data.io.masks import decode_masks
from zoo.engine.assembly import build_data
from zoo.engine.comparison import compare
from zoo.engine.loading import load
from zoo.methods.predictions import Classification, Report, Segmentation
from zoo.visualization.pages import image_url, overlay_url, write_demo_page
from zoo.visualization.tables import Row, markdown_table, table_cells

PEERS = ("zero_shot", "linear_probe", "coop")
RECIPES = (*(f"{peer}/chest_drr_16shot" for peer in PEERS), "nearl_clip/chest_drr_16shot")
CLASSES, MASKS, REPORT = "nearl-clip-chest-drr-16shot", "medseg-r-chest-drr", "interleaved-vl-crop-chest-drr"
FILMS, REPORTS = 10, 2
QUESTIONS = ("explicit", "implicit", "several", "absent")
"""Kinds of question, of each of which one is shown."""

STEPS = "trainer.max_steps=200"
"""Fewer than in the recipes, for a demo in minutes."""

HELD_OUT = 24
"""Test films from which questions and reports are taken."""


def run_demo(out: Path, seeds: Sequence[int], console: Console, settings: Sequence[str] = ()) -> Path:
    """Render radiographs, predict with the three cards, train and measure four recipes; an interrupted demo resumes.

    Args:
        out: folder of the page and the runs.
        seeds: of the runs.
        console: to print to.
        settings: ``key=value`` of the recipes that are trained.

    Returns:
        The page.

    Raises:
        MissingDataError: the package with the CT is not installed.
        CardError: the weights are not here.
    """
    start = time.monotonic()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for card in card_chain([CLASSES, MASKS, REPORT]):
        check_files(card)
    out.mkdir(parents=True, exist_ok=True)
    console.rule("1 of 4: NEARL names the finding")
    films = _classify(settings)
    correct = sum(film["right"] for film in films)
    console.print(f"{correct} of {len(films)} films are called right")
    console.rule("2 of 4: MedSeg-R answers with masks")
    questions = _segment()
    for item in questions:
        console.print(f"{item['question']}\n  {item['answer']}", markup=False, highlight=False)
    console.rule("3 of 4: interleaved reasoning writes a report")
    reports = _report(out)
    for item in reports:
        console.print(item["report"], markup=False, highlight=False)
    console.rule("4 of 4: NEARL and its peers learn from 16 films a class")
    rows = compare(RECIPES, out / "comparison", seeds=seeds, overrides=[STEPS, *settings])
    console.print(markdown_table(rows), markup=False, highlight=False, soft_wrap=True)
    page = out / "index.html"
    write_demo_page(films, questions, reports, _table(rows), out / "comparison" / "table.png", page)
    console.print(
        f"done in {(time.monotonic() - start) / 60:.1f} minutes; open {page.resolve().as_uri()}", soft_wrap=True
    )
    return page


def _data(card: str, settings: Sequence[str] = ()) -> ZooData:
    """The data set that a card was measured on, as small as it can be."""
    return build_data(resolve_recipe(read_card(card).recipe(settings)))


def _classify(settings: Sequence[str]) -> list[dict[str, Any]]:
    """The class of the first test films beside the truth."""
    data = _data(CLASSES, [setting for setting in settings if setting.startswith("data.")])
    test: Any = data.split("test")
    samples = [test[index] for index in range(min(FILMS, len(test)))]
    names = data.metadata()["class_names"]
    rows = []
    for sample, prediction in zip(samples, load(CLASSES).predict_images([s["image"] for s in samples]), strict=True):
        assert isinstance(prediction, Classification)
        truth = names[sample["label"]]
        rows.append(
            {
                "image": image_url(sample["image"][0]),
                "truth": truth,
                "predicted": prediction.label,
                "probability": prediction.probabilities[prediction.label],
                "right": prediction.label == truth,
            }
        )
    return rows


def _segment() -> list[dict[str, Any]]:
    """Answers and masks of the first test question of each kind, beside the true ones."""
    test: Any = _data(MASKS, [f"data.held_out={HELD_OUT}"]).split("test")
    first: dict[str, tuple[torch.Tensor, Any]] = {}
    for sample in (test[index] for index in range(len(test))):
        first.setdefault(sample["turns"][0].kind, (sample["image"], sample["turns"][0]))
    images, turns = zip(*(first[kind] for kind in QUESTIONS if kind in first), strict=True)
    method: Any = load(MASKS)
    predictions = method.predict_images(images, questions=[turn.question for turn in turns])
    rows = []
    for image, turn, prediction in zip(images, turns, predictions, strict=True):
        assert isinstance(prediction, Segmentation)
        size = (image.shape[-2], image.shape[-1])
        rows.append(
            {
                "question": turn.question,
                "answer": prediction.answer or "(empty answer)",
                "true_answer": turn.answer,
                "masks": overlay_url(image, decode_masks(prediction.masks, size)),
                "true_masks": overlay_url(image, decode_masks(turn.masks, size)),
            }
        )
    return rows


def _report(out: Path) -> list[dict[str, Any]]:
    """Reports of the first test films with findings beside the true ones; each has a page with its chain of thought."""
    test: Any = _data(REPORT, [f"data.held_out={HELD_OUT}"]).split("test")
    samples = (test[index] for index in range(len(test)))
    chosen = [sample for sample, _ in zip((s for s in samples if s["record"].findings), range(REPORTS), strict=False)]
    images, records = [sample["images"][0] for sample in chosen], [sample["record"] for sample in chosen]
    rows = []
    method: Any = load(REPORT)
    for number, prediction in enumerate(method.predict_images(images, prompts=[r.prompt for r in records]), 1):
        assert isinstance(prediction, Report)
        page = prediction.save(out / "reports", f"report-{number}", overwrite=True)
        rows.append(
            {
                "image": image_url(prediction.image[0]),
                "report": prediction.report,
                "true_report": records[number - 1].report,
                "steps": [(step.region, step.statement) for step in prediction.steps],
                "page": page.relative_to(out).as_posix(),
            }
        )
    return rows


def _table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    names = [name for name in ("accuracy", "macro_f1", "auroc") if all(name in row.metrics for row in rows)]
    return table_cells(rows, names)
