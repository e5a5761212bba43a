"""Commands on cards: publish, verify, push, pull, export."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from zoo.cli.console import Device, Json, Set, console, errors, print_json, print_table, report_errors

commands = typer.Typer()


@commands.command()
def publish(
    run: Annotated[Path, typer.Argument(help="a finished run folder")],
    name: Annotated[str, typer.Option(help="Name of the card.")],
    version: Annotated[str, typer.Option(help="Increase it when the card changes.")] = "1.0.0",
    half: Annotated[bool, typer.Option("--half", help="Store float16.")] = False,
    limitations: Annotated[str, typer.Option(help="Added to the limitations of the data set.")] = "",
    license: Annotated[
        str | None,
        typer.Option(help="Of the weights, as a Hugging Face licence name, as cc-by-4.0; unknown if left out."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the card of this name.")] = False,
    device: Device = "auto",
    settings: Set = None,
) -> None:
    """Publish a run as a card. Example: `zoo publish runs/nearl_clip/chest_drr_16shot --name my-card`."""
    from zoo.engine.publishing import publish as publish_card

    with report_errors():
        options: dict[str, Any] = {"version": version, "limitations": limitations, "license": license}
        options |= {"device": device, "settings": settings or []}
        folder = publish_card(run, name, half=half, replace=replace, **options)
        console.print(f"wrote {folder}\nnext: zoo verify {name}")


@commands.command()
def verify(
    cards: Annotated[list[str] | None, typer.Argument(help="cards")] = None,
    every: Annotated[bool, typer.Option("--all", help="All local cards.")] = False,
    device: Device = "auto",
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Evaluate cards again and compare with the published metrics; fails where one differs. Example: `zoo verify --all`."""
    from zoo.cards.store import list_cards
    from zoo.engine.verification import verify as verify_card

    names = list_cards() if every else cards or []
    if not names:
        errors.print("name a card, or use --all")
        raise typer.Exit(2)
    with report_errors():
        checked = [result for name in names for result in verify_card(name, settings or [], device=device)]
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
        console.print(f"wrote {export_card(card, out, kind, settings or [])}")
