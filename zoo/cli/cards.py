"""Commands on cards: publish, verify, push, pull, export."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from zoo.cli.console import (
    Device,
    Json,
    Set,
    Settings,
    console,
    errors,
    parse_integers,
    print_json,
    print_table,
    report_errors,
    split_settings,
)

commands = typer.Typer()


@commands.command()
def publish(
    run: Annotated[Path, typer.Argument(help="a finished run folder")],
    name: Annotated[str, typer.Option(help="Name of the card.")],
    changes: Settings = None,
    version: Annotated[str, typer.Option(help="Increase it when the card changes.")] = "1.0.0",
    half: Annotated[bool, typer.Option("--half", help="Store float16.")] = False,
    limitations: Annotated[str, typer.Option(help="Added to the limitations of the data set.")] = "",
    license: Annotated[
        str | None,
        typer.Option(help="Of the weights, as a Hugging Face licence name, as cc-by-4.0; unknown if left out."),
    ] = None,
    data_license: Annotated[str | None, typer.Option(help="Of the training data.")] = None,
    data_source: Annotated[str | None, typer.Option(help="What the training data are, and how to get them.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the card of this name.")] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Put two test samples into the card, for quick verification.")
    ] = False,
    device: Device = "auto",
    settings: Set = None,
) -> None:
    """Publish a run as a card. Example: `zoo publish runs/nearl_clip/chest_drr_16shot --name my-card`."""
    from zoo.cards.store import find_card
    from zoo.engine.publishing import data_places
    from zoo.engine.publishing import publish as publish_card

    with report_errors():
        options: dict[str, Any] = {"version": version, "limitations": limitations, "license": license}
        options |= {"data_license": data_license, "data_source": data_source}
        options |= {"device": device, "settings": [*(changes or []), *(settings or [])]}
        folder = publish_card(run, name, half=half, replace=replace, probe=probe, **options)
        place = name if find_card(name).resolve() == folder.resolve() else folder
        given = "".join(f" {shlex.quote(setting)}" for setting in data_places(run))
        console.print(f"wrote {folder}\nnext: zoo verify {place}{given}", highlight=False, soft_wrap=True)


@commands.command()
def verify(
    cards: Annotated[list[str] | None, typer.Argument(help="cards, with key=value changes of their recipes")] = None,
    every: Annotated[bool, typer.Option("--all", help="All local cards.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="The probes of the cards alone: seconds each, without data.")
    ] = False,
    device: Device = "auto",
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Evaluate cards again and compare with the published metrics; fails where one differs. Example: `zoo verify --all`.

    With `--quick`, a few samples that are in each card are evaluated instead: `zoo verify --all --quick`. A card that does not name its
    data is told where they are: `zoo verify my-card data.table=mine.csv`.
    """
    from zoo.cards.store import list_cards

    named, settings = split_settings(cards or [], settings)
    names = list_cards() if every else named
    if not names:
        errors.print("name a card, or use --all")
        raise typer.Exit(2)
    if quick:
        _verify_probes(names, settings, as_json)
        return
    from zoo.engine.verification import verify_all

    with report_errors():
        checked = verify_all(names, settings, device=device)
    failed = [result for result in checked if not result.holds]
    if as_json:
        print_json(
            [{"card": c.card, **c.metric.model_dump(), "measured": c.measured, "holds": c.holds} for c in checked]
        )
    else:
        rows = [
            [c.card, c.metric.name, f"{c.metric.value:.4f}", f"{c.measured:.4f}", "yes" if c.holds else "NO"]
            for c in checked
        ]
        print_table("verification", ["card", "metric", "published", "measured", "within tolerance"], rows)
    if failed:
        errors.print(f"{len(failed)} of {len(checked)} metrics differ by more than their tolerance")
        raise typer.Exit(1)


def _verify_probes(names: list[str], settings: list[str], as_json: bool) -> None:
    from rich.progress import track

    from zoo.engine.probing import verify_probe

    with report_errors():
        checked = [
            result
            for name in track(names, description="verifying", console=errors, transient=True)
            for result in verify_probe(name, settings)
        ]
    if as_json:
        print_json([asdict(result) for result in checked])
    else:
        rows = [[c.card, c.name, f"{c.expected:.4f}", f"{c.measured:.4f}", "yes" if c.holds else "NO"] for c in checked]
        print_table("probes", ["card", "metric, or output and its error", "published", "measured", "holds"], rows)
    if failed := sum(not result.holds for result in checked):
        errors.print(f"{failed} of {len(checked)} outputs and metrics differ by more than their tolerance")
        raise typer.Exit(1)


@commands.command()
def probe(
    cards: Annotated[list[str], typer.Argument(help="cards, with key=value changes of their recipes")],
    samples: Annotated[str, typer.Option(help="Indices of the test samples, comma-separated.")] = "0,1",
    settings: Set = None,
) -> None:
    """Write a few test samples, with their outputs, into cards, for `zoo verify --quick`. Example: `zoo probe my-card`.

    The images are in the card then, as JPEG: only where they may be published.
    """
    from zoo.engine.probing import add_probe

    names, settings = split_settings(cards, settings)
    with report_errors():
        for name in names:
            console.print(f"wrote {add_probe(name, parse_integers(samples), settings)}", markup=False, highlight=False)


@commands.command()
def push(
    card: Annotated[str, typer.Argument(help="a card")], repo: Annotated[str, typer.Argument(help="OWNER/NAME")]
) -> None:
    """Upload a card to the Hugging Face Hub, with your own token. Example: `zoo push my-card me/my-card`."""
    from zoo.cards.hub import push as upload

    with report_errors():
        console.print(upload(card, repo))


@commands.command()
def pull(
    repo: Annotated[str, typer.Argument(help="OWNER/NAME, a folder, or a listed card (from ZOO_HUB_OWNER)")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
) -> None:
    """Fetch a card into the cache, hashes checked. Example: `zoo pull me/my-card`."""
    from zoo.cards.hub import pull as fetch

    with report_errors():
        console.print(f"wrote {fetch(repo, revision)}")


@commands.command()
def export(
    card: Annotated[str, typer.Argument(help="a card")],
    changes: Settings = None,
    kind: Annotated[
        Literal["torch_export", "onnx", "merged"], typer.Option("--format", help="What to write.")
    ] = "torch_export",
    out: Annotated[
        Path | None, typer.Option(help="File, or folder of --format merged; the card's name if left out.")
    ] = None,
    settings: Set = None,
) -> None:
    """Write a card for programs that do not have the zoo. Example: `zoo export nearl-clip-chest-drr-16shot --format onnx`.

    torch_export and onnx write the graph from images to the result, for classifiers and U-Nets; a JSON file beside it says what goes in
    and what comes out. merged writes the base with LoRA merged, in open_clip's or transformers' own format.
    """
    from zoo.engine.exporting import export as export_card

    with report_errors():
        written = export_card(card, out, kind, [*(changes or []), *(settings or [])])
        console.print(f"wrote {written}", markup=False, highlight=False, soft_wrap=True)
