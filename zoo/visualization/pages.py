"""Self-contained HTML pages for people."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from zoo.data.conversations.records import said_of_masks
from zoo.data.io.masks import decode_masks
from zoo.decoders.evidence import EVIDENCE, EvidenceName

_SIDE = 384
COLOURS = ("#ff5a36", "#36a3ff", "#ffd23f", "#4cd07d", "#c77dff", "#ff8fab")
"""Of masks, in the order of an answer's ``[SEG]``."""


def write_trace_page(
    film: torch.Tensor, prediction: dict[str, Any], evidence: Sequence[torch.Tensor], mode: EvidenceName, file: Path
) -> None:
    """Write a trace as one HTML file: the film with each region boxed in turn, its evidence beside its text, the report.

    Args:
        film: (1 or 3, height, width) in [0, 1].
        prediction: ``steps`` (region, box, statement, evidence: index or -1) and ``report``.
        evidence: images (height, width) in [0, 1].
        mode: of the evidence; evidence that the model wrote is marked as generated.
        file: to write.
    """
    steps = [
        {
            **step,
            "film": _data_url(_boxed(film, step["box"])),
            "evidence": _data_url(_picture(evidence[step["evidence"]]))
            if 0 <= step["evidence"] < len(evidence)
            else None,
        }
        for step in prediction["steps"]
    ]
    facts = {"steps": steps, "report": prediction["report"], "film": _data_url(_picture(film[0]))}
    title = f"Chest radiograph, evidence: {mode}"
    _write("trace_page.html.jinja", file, title=title, kind=EVIDENCE[mode].image, **facts)


def write_answer_page(image: torch.Tensor, turns: Sequence[dict[str, Any]], file: Path) -> None:
    """Write questions and answers about an image as one HTML file: question, answer and overlay together.

    Args:
        image: (1 or 3, height, width) in [0, 1].
        turns: ``question``, ``answer``, ``ended`` and ``masks`` (COCO run lengths) of each.
        file: to write.
    """
    shown = []
    for turn in turns:
        masks = decode_masks(turn["masks"], (image.shape[-2], image.shape[-1]))
        said = said_of_masks(turn["answer"], len(masks))
        legend = [(COLOURS[index % len(COLOURS)], words) for index, words in enumerate(said)]
        shown.append({**turn, "overlay": _data_url(overlay(image, masks)), "legend": legend})
    _write("answer_page.html.jinja", file, title="Questions and answers", turns=shown)


def overlay(image: torch.Tensor, masks: torch.Tensor) -> Image.Image:
    """An image (1 or 3, height, width) with masks (n, height, width) in colours over it."""
    from torchvision.utils import draw_segmentation_masks

    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).expand(3, -1, -1)
    for index, mask in enumerate(masks.bool().cpu()):  # one at a time: drawn together, overlaps turn black
        pixels = draw_segmentation_masks(pixels, mask, alpha=0.45, colors=COLOURS[index % len(COLOURS)])
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _write(template: str, file: Path, **facts: Any) -> None:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(environment.get_template(template).render(**facts), encoding="utf-8")


def _picture(pixels: torch.Tensor) -> Image.Image:
    array = (pixels.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    picture = Image.fromarray(array)
    return picture.resize(
        (round(_SIDE * picture.width / max(picture.size)), round(_SIDE * picture.height / max(picture.size)))
    )


def _boxed(film: torch.Tensor, box: Sequence[int] | None) -> Image.Image:
    picture = _picture(film[0]).convert("RGB")
    if box:
        scale = picture.width / film.shape[-1]
        corners = [min(max(value * scale, 0), _SIDE - 1) for value in box]
        ImageDraw.Draw(picture).rectangle(corners, outline="#ff5a36", width=3)
    return picture


def _data_url(picture: Image.Image) -> str:
    held = io.BytesIO()
    picture.save(held, format="PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode("ascii")
