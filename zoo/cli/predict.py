"""Predictions of cards: predict, app."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from zoo.cli.console import (
    Device,
    Json,
    Set,
    console,
    errors,
    is_first_process,
    print_json,
    print_table,
    report_errors,
    split_settings,
)

commands = typer.Typer()


@commands.command()
def predict(
    card: Annotated[str, typer.Argument(help="a card")],
    images: Annotated[
        list[Path], typer.Argument(help="files, folders for all images below them, or patterns as 'films/**/*.dcm'")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for figures and results.")] = None,
    ask: Annotated[str | None, typer.Option(help="A question, for a card that answers questions.")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Ask several questions about one image; an empty line ends.")
    ] = False,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="Write masks of a DICOM image as DICOM SEG to --out.")
    ] = False,
    frame: Annotated[int | None, typer.Option(min=0, help="Frame of multi-frame DICOM, page of TIFF.")] = None,
    axis: Annotated[
        int | None, typer.Option(min=0, max=2, help="Of NIfTI volumes: 0 sagittal, 1 coronal, 2 axial slices.")
    ] = None,
    index: Annotated[
        int | None, typer.Option(min=0, help="Slice of NIfTI volumes; the middle one if left out.")
    ] = None,
    bits: Annotated[
        int | None, typer.Option(min=1, max=16, help="Bits in use of 16-bit files; found if left out.")
    ] = None,
    device: Device = "auto",
    settings: Set = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size.")] = 8,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Overwrite the outputs of an earlier prediction.")
    ] = False,
    format: Annotated[
        Literal["text", "json", "jsonl", "csv"],
        typer.Option(
            help="Of what is printed; jsonl and csv as results come. The file in --out is JSON Lines, or CSV with csv."
        ),
    ] = "text",
    as_json: Json = False,
) -> None:
    """Predict images, with a figure of each in --out. Example: `zoo predict nearl-clip-chest-drr-16shot a.png --out output`.

    Files are read lazily, and each result is written at once, also to predictions.jsonl in --out, whose folders are those of the inputs.
    What cannot be read is reported and passed over; the exit code is then 1.
    A folder, with a table: `zoo predict nearl-clip-chest-drr-16shot films --format csv --out output > results.csv`
    With a question: `zoo predict medseg-r-chest-drr a.png --ask "What should be drained?" --out output`
    """
    from zoo.data.io.images import ImageOptions
    from zoo.engine.prediction import predict_files

    format = "json" if as_json else format
    options = ImageOptions(frame=frame, axis=axis, index=index, bits=bits)
    inputs, settings = split_settings(images, settings)
    with report_errors():
        if chat:
            if ask is not None or format != "text" or dicom_seg:
                raise typer.BadParameter(
                    "--chat reads questions from the terminal; it cannot be combined with --ask, --format, --json or --dicom-seg"
                )
            _chat(card, inputs, out, options, device, settings)
            return
        if dicom_seg and out is None:
            raise typer.BadParameter("--dicom-seg requires --out")
        stream = _Stream(format) if format in ("jsonl", "csv") else None
        predictions = predict_files(
            card,
            inputs,
            out,
            question=ask,
            dicom_seg=dicom_seg,
            options=options,
            device=device,
            settings=settings,
            batch_size=batch_size,
            overwrite=overwrite,
            format="csv" if format == "csv" else "jsonl",
            on_prediction=stream or (_report_error if format == "json" else _print_prediction),
        )
    if stream:
        stream.end()
    if format == "json":
        print_json(predictions)
    if failed := sum("error" in prediction for prediction in predictions.values()):
        if len(predictions) > 1 and is_first_process():
            errors.print(f"{failed} of {len(predictions)} inputs failed, as said above", highlight=False)
        raise typer.Exit(1)


class _Stream:
    """Prints results as lines, each at once, and errors to standard error too."""

    def __init__(self, format: Any) -> None:
        from zoo.engine.result_files import ResultLines

        self._lines = ResultLines(format)

    def __call__(self, path: str, prediction: dict[str, Any]) -> None:
        _report_error(path, prediction)
        self._write(self._lines.add(path, prediction))

    def end(self) -> None:
        self._write(self._lines.end())

    @staticmethod
    def _write(text: str) -> None:
        if text and is_first_process():
            sys.stdout.write(text)
            sys.stdout.flush()


def _report_error(path: str, prediction: dict[str, Any]) -> None:
    if "error" in prediction:
        errors.print(prediction["error"], markup=False, highlight=False, soft_wrap=True)


def _print_prediction(path: str, prediction: dict[str, Any]) -> None:
    _report_error(path, prediction)
    if set(prediction) <= {"error"}:
        return
    console.print(path, style="bold", markup=False, highlight=False, soft_wrap=True)
    for key, value in prediction.items():
        if key == "error":
            continue
        if isinstance(value, dict):
            print_table(key, ["name", "value"], [[str(n), f"{v:.3f}"] for n, v in value.items()])
        elif key in ("masks", "evidence_ids"):
            console.print(f"{key}: {len(value)}")
        else:
            console.print(f"{key}: {value}", markup=False)


def _chat(card: str, images: list[str], out: Path | None, options: Any, device: str, settings: list[str]) -> None:
    from zoo.engine.prediction import chat

    if len(images) != 1:
        raise typer.BadParameter("--chat takes one image")

    def next_question() -> str | None:
        try:
            return console.input("[bold]you:[/] ").strip() or None
        except (EOFError, KeyboardInterrupt):
            return None

    page = None
    for turn in chat(card, Path(images[0]), next_question, out=out, options=options, device=device, settings=settings):
        message = turn.get("error") or f"zoo: {turn['answer']} (masks: {len(turn['masks'])})"
        (errors if "error" in turn else console).print(message, markup=False)
        page = turn.get("page", page)
    if page is not None:
        console.print(f"wrote {page}", markup=False, highlight=False, soft_wrap=True)


@commands.command()
def app(
    cards: Annotated[list[str], typer.Argument(help="cards")],
    host: Annotated[str, typer.Option(help="Address to serve at; 0.0.0.0 for other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port.")] = 7860,
    device: Device = "auto",
    settings: Set = None,
) -> None:
    """Serve cards in the browser. Example: `zoo app nearl-clip-chest-drr-16shot medseg-r-chest-drr`.

    Upload a film, choose a card, ask; the result can be downloaded. Needs gradio: pip install 'medvl-zoo[app]'.
    """
    from zoo.cli.web_app import build_app

    names, settings = split_settings(cards, settings)
    with report_errors():
        page = build_app(names, device, settings)
        console.print(f"http://{host}:{port}  (Ctrl-C ends)", highlight=False)
        page.launch(server_name=host, server_port=port, quiet=True, max_file_size="200mb")
