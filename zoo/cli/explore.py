"""Commands that inspect: list, show, check, plan."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.console import (
    Json,
    Settings,
    console,
    errors,
    print_facts,
    print_json,
    print_table,
    report_errors,
    split_settings,
)
from zoo.config.recipe import read_recipe
from zoo.paths import CACHE_KINDS
from zoo.registry import nearest

commands = typer.Typer()


@commands.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="components, recipes, datasets, cards or all")] = "all",
    as_json: Json = False,
) -> None:
    """List components, recipes, datasets and cards. Example: `zoo list recipes`."""
    from zoo.engine.catalog import list_all

    with report_errors():
        names = list_all()
    if what != "all" and what not in names:
        errors.print(f"cannot list '{what}'{nearest(what, [*names, 'all'])}")
        raise typer.Exit(2)
    chosen = names if what == "all" else {what: names[what]}
    if as_json:
        print_json(chosen)
        return
    for title, content in chosen.items():
        if isinstance(content, dict):
            rows = [[kind, ", ".join(components)] for kind, components in content.items() if components]
            print_table(title, ["kind", "names"], rows)
        else:
            print_table(title, ["name"], [[name] for name in content])


@commands.command()
def show(
    name: Annotated[
        str, typer.Argument(help="a component, recipe or card; a dataset with --out is shown as a contact sheet")
    ],
    changes: Settings = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the contact sheet of a dataset.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value for a dataset, as image_size=256.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe a component, recipe or card. Examples: `zoo show oca` · `zoo show chest_drr image_size=256 --out pictures`."""
    from zoo.engine.catalog import describe
    from zoo.engine.datasets import plot_dataset

    with report_errors():
        if out is not None:
            console.print(f"wrote {plot_dataset(name, out, [*(changes or []), *(settings or [])])}")
            return
        description = describe(name)
        if as_json:
            print_json(description)
        else:
            print_facts(description)


@commands.command()
def check(
    recipes: Annotated[list[str], typer.Argument(help="recipes, by name or file, with key=value overrides")],
    no_data: Annotated[
        bool, typer.Option("--no-data", help="Do not read the data: tables, splits, images, lengths of texts.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Open the first images of each split, not the headers of all.")
    ] = False,
) -> None:
    """Validate recipes, their sources, strategy and data without loading weights. Example: `zoo check nearl_clip/chest_drr_16shot`.

    Overrides apply to every recipe: `zoo check medseg_r/llava_7b_sam_vit_h method.context.source=weights/llava`
    """
    from zoo.config.building import resolve_recipe
    from zoo.engine.inspection import inspect_recipe
    from zoo.engine.preflight import missing_data, preflight

    names, settings = split_settings(recipes)
    if not names:
        raise typer.BadParameter("name a recipe")
    invalid = 0
    for name in names:
        try:
            with report_errors():
                resolved = resolve_recipe(read_recipe(name, settings))
                notes = preflight(resolved, to_read=not no_data)
                found = inspect_recipe(resolved, quick=quick) if not (no_data or missing_data(resolved)) else None
        except typer.Exit:
            invalid += 1
            continue
        if found is not None:
            for title, rows in found.tables.items():
                print_facts({title: rows})
            notes += found.notes
        if found is not None and found.problems:
            for problem in found.problems:
                errors.print(f"{name}: {problem}", markup=False, highlight=False, soft_wrap=True)
            invalid += 1
            continue
        console.print(f"{name}: valid", markup=False, highlight=False, soft_wrap=True)
        for note in notes:
            console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    if invalid:
        if len(names) > 1:
            errors.print(f"{invalid} of {len(names)} recipes are not valid", highlight=False)
        raise typer.Exit(1)


@commands.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="a recipe")], settings: Settings = None, as_json: Json = False
) -> None:
    """Parameters, FLOPs and memory at full size, on fake tensors. Example: `zoo plan nearl_clip/vitb16_btmri`."""
    from zoo.engine.planning import plan as compute_plan

    with report_errors():
        result = compute_plan(read_recipe(recipe, settings or []))
    if as_json:
        print_json(
            {**asdict(result), "parameters": result.parameters, "total_memory": result.peak, "peak": result.peak}
        )
        return
    rows = [[part, f"{total:,}", f"{trained:,}"] for part, (total, trained) in result.components.items()]
    total, trained = result.parameters
    print_table(recipe, ["component", "parameters", "trained"], [*rows, ["all", f"{total:,}", f"{trained:,}"]])
    console.print(
        f"{result.flops / 1e9:,.1f} GFLOPs per step (forward and backward), batch {result.batch_size} per device"
    )
    sizes = {**result.memory, "peak": result.peak}
    setting = f"{result.precision}, strategy {result.strategy}, {result.devices} device(s)"
    print_table(f"GB per device ({setting})", list(sizes), [[f"{size / 1e9:.2f}" for size in sizes.values()]])
    for note in result.notes:
        console.print(f"note: {note}", highlight=False)


@commands.command()
def cache(
    clean: Annotated[str | None, typer.Option(help="Remove a kind (" + ", ".join(CACHE_KINDS) + "), or all.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is in the cache, and how large. Example: `zoo cache --clean embeddings`.

    The cache is `ZOO_CACHE`, else `~/.cache/medvl-zoo`. What is removed is made or fetched again when it is needed.
    """
    from zoo.engine.cache import cache_contents, chosen_kinds, clean_cache
    from zoo.paths import cache_folder

    with report_errors():
        contents = cache_contents()
        if clean is not None:
            sizes = {cached.kind: f"{cached.bytes / 1e6:,.1f} MB" for cached in contents}
            kinds = chosen_kinds(clean)
            named = ", ".join(f"{kind} ({sizes[kind]})" for kind in kinds)
            if kinds and (yes or typer.confirm(f"Remove {named} from {cache_folder()}?")):
                clean_cache(clean)
                console.print(f"removed {named}", highlight=False, soft_wrap=True)
            else:
                console.print("nothing was removed", highlight=False)
            return
    if as_json:
        print_json({"folder": str(cache_folder()), "kinds": [asdict(cached) for cached in contents]})
        return
    rows = [[c.kind, f"{c.files:,}", f"{c.bytes / 1e6:,.1f} MB", c.content] for c in contents]
    total = f"{sum(cached.bytes for cached in contents) / 1e6:,.1f} MB"
    print_table(f"{cache_folder()}, {total}", ["kind", "files", "size", "content"], rows)
