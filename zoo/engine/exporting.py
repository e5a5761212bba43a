"""Trained models for programs that do not have the zoo: torch.export, ONNX, or weights merged into their base."""

import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from zoo.cards.store import read_card
from zoo.engine.loading import load
from zoo.errors import OutputExistsError, UnsupportedError
from zoo.files import share
from zoo.methods.exports import Exportable, GraphExport, MergedExport

Format = Literal["torch_export", "onnx", "merged"]
FORMATS: tuple[Format, ...] = ("torch_export", "onnx", "merged")
_SUFFIXES = {"torch_export": ".pt2", "onnx": ".onnx", "merged": ""}


def export(
    name: str | Path, out: Path | None = None, kind: Format = "torch_export", settings: Sequence[str] = ()
) -> Path:
    """Export a card.

    "torch_export" and "onnx" write one file and beside it a JSON file that says what goes in and what comes out; any batch
    size. "merged" writes a folder with LoRA merged into the base, in the base's own format.

    Args:
        name: of the card, or its folder.
        out: file or folder to write; the card's name, in the working directory, if None.
        kind: of the export.
        settings: ``key=value`` changes of the recipe.

    Raises:
        UnsupportedError: the method has no such export, or a package that writes it is missing.
        OutputExistsError: the output exists.
    """
    out = out or Path(f"{read_card(name).name}{_SUFFIXES[kind]}")
    if out.exists():
        raise OutputExistsError(f"{out} exists; choose another name with --out")
    if kind == "onnx" and (
        missing := [part for part in ("onnx", "onnxscript") if importlib.util.find_spec(part) is None]
    ):
        raise UnsupportedError(f"ONNX needs {' and '.join(missing)}: pip install 'medvl-zoo[export]'")
    method = load(name, settings=settings).cpu()
    if kind == "merged":
        if not isinstance(method, MergedExport):
            raise UnsupportedError(f"{type(method).__name__} has no LoRA to merge; use --format torch_export or onnx")
        return _write_beside(out, method.save_merged)
    if not isinstance(method, GraphExport):
        raise UnsupportedError(f"{type(method).__name__} writes answers, which is no fixed graph; use --format merged")
    exportable = method.exportable()
    return _write_beside(out, lambda file: _write_graph(exportable, file, kind), _description(exportable, str(name)))


def _write_graph(exportable: Exportable, file: Path, kind: Format) -> None:
    example = torch.rand(2, *exportable.input_shape)
    batch = {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad():
        if kind == "torch_export":
            torch.export.save(torch.export.export(exportable.module, (example,), dynamic_shapes=(batch,)), str(file))
            return
        torch.onnx.export(
            exportable.module,
            (example,),
            str(file),
            dynamo=True,
            dynamic_shapes=(batch,),
            input_names=["images"],
            output_names=[exportable.output_name],
            external_data=False,
            verbose=False,
        )


def _description(exportable: Exportable, name: str) -> dict[str, Any]:
    channels, height, width = exportable.input_shape
    images = f"images (batch, {channels}, {height}, {width}) float32 in [0, 1]; {exportable.preprocessing}"
    return {"card": name, "input": images, "output": exportable.output, "names": list(exportable.names)}


def _write_beside(out: Path, write: Any, description: dict[str, Any] | None = None) -> Path:
    """Write into a folder beside the output, then rename, so that no half of an export is left."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        write(folder / out.name)
        if description is not None:
            text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"
            (folder / f"{out.name}.json").write_text(text, encoding="utf-8")
        for path in folder.rglob("*"):
            if path.is_file():
                share(path)
        for part in folder.iterdir():
            os.replace(part, out.parent / part.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return out
