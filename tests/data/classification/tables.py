"""Small tables of labelled images for the tests of this folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Row = tuple[str, ...]


def write_table(folder: Path, rows: Sequence[Row], header: str = "path,label,patient,split") -> str:
    """``table.csv`` with an image for each row (label, patient, split); returns its path."""
    lines = [header]
    for index, row in enumerate(rows):
        Image.fromarray(np.full((16, 16), index % 250, np.uint8)).save(folder / f"{index}.png")
        lines.append(",".join([f"{index}.png", *row]))
    (folder / "table.csv").write_text("\n".join(lines))
    return str(folder / "table.csv")


def rows(count: int = 10, splits: Sequence[str] = ("train", "val", "test"), labels: str = "ab") -> list[Row]:
    """``count`` images of every label in every split, each of another patient."""
    return [(label, f"p{split}{label}{index}", split) for split in splits for label in labels for index in range(count)]
