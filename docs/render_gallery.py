"""Render the pictures of README and gallery: ``python docs/render_gallery.py [PICTURE ...]``.

The films are the first test cases of each card's data, in order, so that nothing is selected for a good result; the one of
the overview is the first with a pleural effusion.
"""

import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

import zoo
from zoo.data.chest_drr.rendering.cases import Case, render_case
from zoo.data.io.masks import decode_masks
from zoo.engine.datasets import build_dataset

PICTURES = Path(__file__).parent / "pictures"
QUESTIONS = ["Segment the pleural effusion.", "What should be drained?", "Segment all abnormalities."]
REPORTER = "interleaved-vl-crop-chest-drr"
COLOURS = ["#ff5a36", "#36a3ff", "#ffd23f", "#4cd07d", "#c77dff", "#ff8fab", "#e0e0e0"]


def test_cases(dataset: str, *settings: str) -> Iterator[Case]:
    """The test cases of a dataset, in order, each rendered when it is asked for."""
    spec = build_dataset(dataset, settings).spec
    return (render_case(spec, "test", index) for index in count())


def has_effusion(case: Case) -> bool:
    """Whether an effusion is among a case's findings."""
    return any(finding.kind == "pleural effusion" for finding in case.findings)


def as_tensor(case: Case) -> torch.Tensor:
    """The film of a case (1, height, width) in [0, 1]."""
    return torch.from_numpy(case.image.astype(np.float32) / 65535)[None]


def truth(case: Case) -> str:
    """The findings of a case in words."""
    return ", ".join(f"{finding.side} {finding.kind}".strip() for finding in case.findings) or "no finding"


def show_masks(axes: Any, image: torch.Tensor, prediction: Any) -> None:
    """A film with the masks of an answer."""
    axes.imshow(image[0], cmap="gray", vmin=0, vmax=1)
    masks = decode_masks(prediction.masks, (image.shape[-2], image.shape[-1]))
    for mask, colour in zip(masks.numpy(), COLOURS, strict=False):
        axes.contour(mask, levels=[0.5], colors=[colour], linewidths=1.5)
        axes.contourf(mask, levels=[0.5, 1], colors=[colour], alpha=0.35)


def show_steps(axes: Any, image: torch.Tensor, report: Any) -> None:
    """A film with the box of each step, numbered."""
    axes.imshow(image[0], cmap="gray", vmin=0, vmax=1)
    for number, (step, colour) in enumerate(zip(report.steps, COLOURS, strict=False), start=1):
        if step.box:
            left, top, right, bottom = step.box
            axes.add_patch(
                Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=2)
            )
            axes.text(left, top, f" {number}", va="top", color=colour, fontsize=12, weight="bold")


def stated(report: Any) -> list[str]:
    """What each step of a report finds: the list at the head of its statement."""
    heads = (step.statement.removeprefix("Findings: ").partition(".")[0] for step in report.steps)
    return [
        f"{number}. {step.region}: {head}"
        for number, (step, head) in enumerate(zip(report.steps, heads, strict=True), 1)
    ]


def caption(axes: Any, text: str, size: float = 9) -> None:
    """Text below a picture."""
    axes.set_axis_off()
    axes.text(0.5, -0.03, text, transform=axes.transAxes, ha="center", va="top", fontsize=size, linespacing=1.35)


def plot_overview(film: torch.Tensor, file: Path) -> None:
    """One film through NEARL, MedSeg-R and interleaved reasoning."""
    (finding,) = zoo.predict("nearl-clip-chest-drr-16shot", film)
    (answer,) = zoo.predict("medseg-r-chest-drr", film, "What should be drained?")
    (report,) = zoo.predict(REPORTER, film)
    figure = Figure(figsize=(11, 4.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.imshow(film[0], cmap="gray", vmin=0, vmax=1)
    left.set_title("few-shot classification (NEARL)")
    ranked = list(finding.to_dict()["probabilities"].items())[:3]
    caption(left, "\n".join(f"{name}: {probability:.2f}" for name, probability in ranked))
    show_masks(middle, film, answer)
    middle.set_title("reasoning segmentation (MedSeg-R)")
    caption(middle, f"“What should be drained?”\n{wrapped(answer.answer)}")
    show_steps(right, film, report)
    right.set_title("interleaved reasoning (evidence: crop)")
    caption(right, "\n".join([*stated(report), wrapped(report.report)]), 8)
    save(figure, file)


def wrapped(text: str, width: int = 52) -> str:
    """Text in lines."""
    return "\n".join(textwrap.wrap(text, width))


def plot_answers(cases: list[Case], file: Path) -> None:
    """Films in columns, questions in rows."""
    films = [as_tensor(case) for case in cases]
    figure = Figure(figsize=(2.6 * len(films), 3.3 * len(QUESTIONS)), layout="constrained")
    grid = figure.subplots(len(QUESTIONS), len(films))
    for row, question in zip(grid, QUESTIONS, strict=True):
        for axes, film, case, answer in zip(
            row, films, cases, zoo.predict("medseg-r-chest-drr", films, question), strict=True
        ):
            show_masks(axes, film, answer)
            axes.set_title(f"truth: {wrapped(truth(case), 30)}", fontsize=8)
            caption(axes, f"“{question}”\n{wrapped(answer.answer, 38)}", 7.5)
    save(figure, file)


def plot_reconstructions(cases: list[Case], file: Path) -> None:
    """Films above, what their tokens decode to below."""
    predictions = zoo.predict("vq-tokenizer-chest-drr", [as_tensor(case) for case in cases])
    figure = Figure(figsize=(2.2 * len(cases), 4.8), layout="constrained")
    for column, prediction in zip(figure.subplots(2, len(cases)).T, predictions, strict=True):
        column[0].imshow(prediction.prepared, cmap="gray", vmin=-1, vmax=1)
        column[1].imshow(prediction.rebuilt, cmap="gray", vmin=-1, vmax=1)
        column[1].set_title(f"{len(prediction.codes)} tokens, {prediction.psnr:.1f} dB", fontsize=9)
        for axes in column:
            axes.set_axis_off()
    save(figure, file)


def plot_reports(cases: list[Case], file: Path) -> None:
    """Films with the boxes of the steps, and the reports."""
    films = [as_tensor(case) for case in cases]
    figure = Figure(figsize=(3.4 * len(films), 4.8), layout="constrained")
    reports = zoo.predict(REPORTER, films)
    for axes, film, case, report in zip(figure.subplots(1, len(films)), films, cases, reports, strict=True):
        show_steps(axes, film, report)
        axes.set_title(f"truth: {wrapped(truth(case), 40)}", fontsize=9)
        caption(axes, "\n".join([*stated(report), wrapped(f"Report: {report.report}", 50)]), 8)
    save(figure, file)


def save(figure: Figure, file: Path) -> None:
    """Write a picture with few colours, which keeps the repository small."""
    figure.savefig(file, dpi=110, bbox_inches="tight")
    Image.open(file).convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"wrote {file}")


def main(chosen: list[str]) -> None:
    """Write the named pictures, or all."""
    cases = list(islice(test_cases("chest_drr_medseg_qa", "image_size=256"), 4))
    further = test_cases("chest_drr_ivl", "image_size=512", "search=systematic")
    large = list(islice(further, 3))
    film = PICTURES / "radiograph.png"
    effusion = next(case for case in chain(large, further) if has_effusion(case))
    Image.fromarray((effusion.image >> 8).astype(np.uint8)).save(film, optimize=True)
    pictures: dict[str, Callable[[Path], None]] = {
        "overview": lambda file: plot_overview(zoo.read_image(film), file),
        "answers": lambda file: plot_answers(cases, file),
        "reports": lambda file: plot_reports(large, file),
        "reconstructions": lambda file: plot_reconstructions(cases, file),
        "prediction": lambda file: save_prediction(film, file),
    }
    for name in chosen or pictures:
        pictures[name](PICTURES / f"{name}.png")


def save_prediction(film: Path, file: Path) -> None:
    """The picture that NEARL's prediction saves."""
    (prediction,) = zoo.predict("nearl-clip-chest-drr-16shot", film)
    with tempfile.TemporaryDirectory() as folder:
        Image.open(prediction.save(folder)).save(file, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
