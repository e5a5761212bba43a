"""Verbs that look: list, show, check, plan."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.console import Json, Settings, console, errors, print_json, print_table, reported
from zoo.config.recipe import read_recipe
from zoo.registry import nearest

verbs = typer.Typer()


@verbs.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="components, recipes, datasets, cards or all")] = "all",
    as_json: Json = False,
) -> None:
    """What there is. Example: `zoo list recipes`."""
    from zoo.engine.catalog import everything as list_everything

    with reported():
        everything = list_everything()
    if what != "all" and what not in everything:
        errors.print(f"nothing is called '{what}'{nearest(what, [*everything, 'all'])}")
        raise typer.Exit(2)
    chosen = everything if what == "all" else {what: everything[what]}
    if as_json:
        print_json(chosen)
        return
    for title, content in chosen.items():
        if isinstance(content, dict):
            print_table(title, ["kind", "names"], [[kind, ", ".join(names)] for kind, names in content.items()])
        else:
            print_table(title, ["name"], [[name] for name in content])


@verbs.command()
def show(
    name: Annotated[
        str, typer.Argument(help="a component, recipe or card; a dataset with --out draws a contact sheet")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for pictures of a dataset.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value for a dataset, as image_size=256.")
    ] = None,
    as_json: Json = False,
) -> None:
    """One thing whole. Examples: `zoo show oca` · `zoo show chest_drr --out pictures --set image_size=256`."""
    from zoo.engine.catalog import facts_about
    from zoo.engine.datasets import draw_dataset

    with reported():
        if out is not None:
            console.print(f"wrote {draw_dataset(name, out, settings or [])}")
            return
        facts = facts_about(name)
        if as_json:
            print_json(facts)
        else:
            for key, value in facts.items():
                console.print(f"[bold]{key}[/]")
                console.print(str(value).rstrip(), markup=False, highlight=False, soft_wrap=True)


@verbs.command()
def check(
    recipes: Annotated[list[str], typer.Argument(help="recipes, by name or file, with key=value changes")],
) -> None:
    """Validate recipes, their sources and strategy without loading weights. Example: `zoo check nearl_clip/chest_drr_16shot`.

    Changes count for every recipe: `zoo check medseg_r/llava_7b_sam_vit_h method.context.source=weights/llava`
    """
    from zoo.config.building import resolve_recipe
    from zoo.engine.preflight import preflight

    settings = [item for item in recipes if "=" in item]
    for name in (item for item in recipes if "=" not in item):
        with reported():
            notes = preflight(resolve_recipe(read_recipe(name, settings)))
            console.print(f"{name}: fine", markup=False, highlight=False, soft_wrap=True)
            for note in notes:
                console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


@verbs.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="a recipe")], settings: Settings = None, as_json: Json = False
) -> None:
    """Parameters, FLOPs and memory at full size, on fake tensors. Example: `zoo plan nearl_clip/vitb16_btmri`."""
    from zoo.engine.planning import plan as make_plan

    with reported():
        made = make_plan(read_recipe(recipe, settings or []))
    if as_json:
        print_json({**asdict(made), "parameters": made.parameters, "total_memory": made.peak, "peak": made.peak})
        return
    rows = [[part, f"{total:,}", f"{trained:,}"] for part, (total, trained) in made.components.items()]
    total, trained = made.parameters
    print_table(recipe, ["component", "parameters", "trained"], [*rows, ["all", f"{total:,}", f"{trained:,}"]])
    console.print(f"{made.flops / 1e9:,.1f} GFLOPs a step (forward and backward), batch {made.batch_size} a device")
    sizes = {**made.memory, "peak": made.peak}
    setting = f"{made.precision}, strategy {made.strategy}, {made.devices} device(s)"
    print_table(f"GB a device ({setting})", list(sizes), [[f"{size / 1e9:.2f}" for size in sizes.values()]])
    for note in made.notes:
        console.print(f"note: {note}", highlight=False)
