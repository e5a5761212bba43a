"""Self-contained HTML pages for people."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from zoo.decoders.evidence import EVIDENCE, EvidenceName

_SIDE = 384


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
    import jinja2

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
    template = Path(__file__).with_name("trace_page.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(template).render(
        title=f"Chest radiograph, evidence: {mode}",
        steps=steps,
        report=prediction["report"],
        film=_data_url(_picture(film[0])),
        kind=EVIDENCE[mode].image,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")


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
