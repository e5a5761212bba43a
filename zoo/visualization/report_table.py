"""The page of a benchmark: its table, and what each model wrote for the same images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.data.io.images import ImageError, read_image
from zoo.visualization.pages import image_url, write_page
from zoo.visualization.tables import Row, table_cells


def write_report_table(
    rows: Sequence[Row],
    notes: Sequence[str],
    reports: Mapping[str, Sequence[Mapping[str, Any]]],
    file: Path,
    caption: str = "",
) -> None:
    """Write the table and reports side by side as one HTML file.

    Args:
        rows: of the table.
        notes: below the table, as on what could not be measured, and why.
        reports: by the name of the row, what it wrote: ``image``, ``report``, ``response``, ``reference`` and ``steps`` of each
                record.
        file: to write.
        caption: above the table: what was measured on.
    """
    header, cells = table_cells(rows)
    films: list[dict[str, Any]] = []
    for position in range(max(map(len, reports.values()), default=0)):
        lines = {name: lines[position] for name, lines in reports.items() if position < len(lines)}
        first = next(iter(lines.values()))
        written = [{"name": name, "response": "", **line} for name, line in lines.items()]
        films.append({"image": _image_url(Path(first["image"])), "reference": first["reference"], "written": written})
    content = {"header": header, "cells": cells, "notes": notes, "caption": caption, "films": films}
    write_page("benchmark_page.html.jinja", file, title="Reports by model and evidence", **content)


def _image_url(path: Path) -> str | None:
    try:
        return image_url(read_image(path)[0])
    except (ImageError, OSError):  # moved since
        return None
