"""The command line: parses, calls, prints. Exit codes: 0 done, 1 failed, 2 wrong use."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from zoo.recipe import RecipeError, list_recipes, read_recipe
from zoo.registry import KINDS, UnknownComponentError, nearest, registry

app = typer.Typer(
    help="A model zoo for medical vision-language research.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Prepare data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
console, errors = Console(), Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]
Settings = Annotated[list[str] | None, typer.Argument(help="Changes, as key=value.", show_default=False)]


@contextmanager
def reported() -> Iterator[None]:
    """Print the zoo's own errors and those of the disk as a message; anything else is a bug and keeps its trace."""
    try:
        yield
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        known = type(error).__module__.startswith(("zoo.", "huggingface_hub")) or isinstance(error, OSError)
        if not known:
            raise
        errors.print(f"{type(error).__name__}:", style="bold red", end=" ")
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, RecipeError | UnknownComponentError) else 1) from error


def print_json(content: Any) -> None:
    """Print JSON on standard output."""
    sys.stdout.write(json.dumps(content, indent=2, default=str) + "\n")


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="components, recipes, datasets, cards or all")] = "all",
    as_json: Json = False,
) -> None:
    """What there is. Example: `zoo list recipes`."""
    from zoo.cards.store import list_cards

    everything: dict[str, Any] = {
        "components": {kind: list(registry(kind)) for kind in KINDS},
        "recipes": list_recipes(),
        "datasets": list(registry("dataset")),
        "cards": list_cards(),
    }
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


@app.command()
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
    from zoo.inspection import draw_dataset, facts_about

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


@data_app.command("build")
def data_build(name: Annotated[str, typer.Argument(help="a dataset")], settings: Settings = None) -> None:
    """Prepare a data set in the cache. Example: `zoo data build chest_drr size=2000 image_size=256`."""
    from zoo.inspection import build_dataset

    with reported():
        report = build_dataset(name, settings or [])
        for split, count in report.counts.items():
            console.print(f"{split}: {count} samples")
        rate = f", {report.rate:.1f} samples/s" if report.seconds > 1 else ": all were in the cache"
        console.print(f"{report.seconds:.1f} s{rate}")


@data_app.command("check")
def data_check(files: Annotated[list[Path], typer.Argument(help="JSONL files of interleaved traces")]) -> None:
    """Check records of interleaved traces, images included. Example: `zoo data check train.jsonl`."""
    from zoo.data.ivl import problems_in

    found = 0
    with reported():
        for file in files:
            records, problems = problems_in(file)
            for problem in problems:
                errors.print(problem, markup=False, highlight=False, soft_wrap=True)
            steps = sum(len(record.steps) for record in records)
            said = f"{file}: {len(records)} records with {steps} steps are fine, {len(problems)} are not"
            console.print(said, markup=False, highlight=False, soft_wrap=True)
            found += len(problems)
    if found:
        raise typer.Exit(1)


@app.command()
def check(recipes: Annotated[list[str], typer.Argument(help="recipes, by name or file")]) -> None:
    """Validate recipes without building weights. Example: `zoo check nearl_clip/chest_drr_16shot`."""
    from zoo.recipe import check_recipe

    for name in recipes:
        with reported():
            check_recipe(read_recipe(name))
            console.print(f"{name}: fine")


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="a recipe")], settings: Settings = None, as_json: Json = False
) -> None:
    """Parameters, FLOPs and memory at full size, on fake tensors. Example: `zoo plan nearl_clip/vitb16_btmri`."""
    from zoo.planning import plan as make_plan

    with reported():
        made = make_plan(read_recipe(recipe, settings or []))
    if as_json:
        print_json({**asdict(made), "parameters": made.parameters, "total_memory": made.total_memory})
        return
    rows = [[part, f"{total:,}", f"{trained:,}"] for part, (total, trained) in made.components.items()]
    total, trained = made.parameters
    print_table(recipe, ["component", "parameters", "trained"], [*rows, ["all", f"{total:,}", f"{trained:,}"]])
    console.print(f"{made.flops / 1e9:,.1f} GFLOPs a step (forward and backward), batch {made.batch_size} a device")
    parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in made.memory.items())
    setting = f"{made.precision}, strategy {made.strategy}, {made.devices} device(s)"
    console.print(f"{made.total_memory / 1e9:.2f} GB a device ({parts}); {setting}")
    for note in made.notes:
        console.print(f"note: {note}", highlight=False)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="a recipe, by name or file")],
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was cut off.")] = False,
) -> None:
    """Train. Example: `zoo train nearl_clip/chest_drr_16shot trainer.max_epochs=5 --out runs/try`."""
    from zoo.training import train as run_training

    with reported():
        folder = out or _run_folder(recipe)
        run_training(read_recipe(recipe, settings or []), folder, resume=resume)
        console.print(f"run: {folder}\nnext: zoo eval {folder}")


def _run_folder(recipe: str) -> Path:
    path = Path(recipe)
    return path.parent if path.name == "recipe.yaml" else Path("runs") / path.with_suffix("")


@app.command("eval")
def evaluate(
    source: Annotated[str, typer.Argument(help="a run folder or a card")],
    settings: Settings = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="What is measured on.")] = "test",
    as_json: Json = False,
) -> None:
    """Measure with 95% intervals. Example: `zoo eval nearl-clip-chest-drr data.classes=novel`."""
    from zoo.evaluation import evaluate as measure
    from zoo.evaluation import open_subject

    with reported():
        metrics = measure(open_subject(source, settings or []), split)
    if as_json:
        print_json({name: asdict(measured) for name, measured in metrics.items()})
        return
    rows = [[name, f"{m.value:.4f}", f"{m.low:.4f} to {m.high:.4f}", str(m.n)] for name, m in metrics.items()]
    print_table(f"{source}, {split}", ["metric", "value", "95% interval", "n"], rows)


@app.command()
def compare(
    recipes: Annotated[list[str], typer.Argument(help="recipes")],
    out: Annotated[Path, typer.Option(help="Folder for runs, table.md, table.json and table.png.")] = Path(
        "comparison"
    ),
    shots: Annotated[str, typer.Option(help="K, comma-separated.")] = "16",
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0,1,2",
    protocol: Annotated[
        Literal["few_shot", "base_to_novel", "full"], typer.Option(help="What is trained on and measured.")
    ] = "few_shot",
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value for every recipe.")] = None,
) -> None:
    """Train and measure recipes side by side. Example: `zoo compare coop/chest_drr_16shot maple/chest_drr_16shot --seeds 0`."""
    from zoo.comparison import compare as run_comparison
    from zoo.comparison import markdown_table

    with reported():
        numbers = {"shots": _numbers(shots), "seeds": _numbers(seeds)}
        rows = run_comparison(recipes, out, protocol=protocol, overrides=settings or [], **numbers)
        console.print(markdown_table(rows), markup=False, highlight=False, soft_wrap=True)
        console.print(f"wrote {out / 'table.md'}, table.json and table.png")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a list of whole numbers such as 0,1,2") from None


@app.command()
def predict(
    card: Annotated[str, typer.Argument(help="a card")],
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG, DICOM or NIfTI files")],
    out: Annotated[Path | None, typer.Option(help="Folder for pictures.")] = None,
    ask: Annotated[str | None, typer.Option(help="A question, for a card that answers questions.")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Ask about one image, turn by turn; an empty line ends.")
    ] = False,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="Masks of a DICOM image as DICOM SEG in --out.")
    ] = False,
    frame: Annotated[int | None, typer.Option(help="Which frame of a multi-frame DICOM.")] = None,
    axis: Annotated[int | None, typer.Option(help="Which axis to cut a NIfTI volume across.")] = None,
    as_json: Json = False,
) -> None:
    """Predict, with a picture each where --out is given. Example: `zoo predict nearl-clip-chest-drr a.png --out seen`.

    With a question: `zoo predict medseg-r-chest-drr a.png --ask "What should be drained?" --out seen`
    """
    from zoo.inspection import predict_files

    with reported():
        if chat:
            _chat(card, images, out, frame)
            return
        if dicom_seg and out is None:
            raise typer.BadParameter("--dicom-seg needs --out")
        predictions = predict_files(card, images, out, ask=ask, dicom_seg=dicom_seg, frame=frame, axis=axis)
    if as_json:
        print_json(predictions)
        return
    for path, prediction in predictions.items():
        console.print(f"[bold]{path}[/]")
        for key, value in prediction.items():
            if isinstance(value, dict):
                print_table(key, ["name", "value"], [[str(n), f"{v:.3f}"] for n, v in value.items()])
            elif key in ("masks", "evidence_ids"):
                console.print(f"{key}: {len(value)}")
            else:
                console.print(f"{key}: {value}", markup=False)


def _chat(card: str, images: list[Path], out: Path | None, frame: int | None) -> None:
    from zoo.inspection import chat as converse

    if len(images) != 1:
        raise typer.BadParameter("--chat is about one image")

    def listen() -> str | None:
        try:
            return console.input("[bold]you:[/] ").strip() or None
        except (EOFError, KeyboardInterrupt):
            return None

    for turn in converse(card, images[0], listen, out=out, frame=frame):
        said = turn.get("error") or f"zoo: {turn['answer']} (masks: {len(turn['masks'])})"
        (errors if "error" in turn else console).print(said, markup=False)
    if out is not None:
        console.print(f"wrote {out / images[0].stem}.html")


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="a finished run folder")],
    name: Annotated[str, typer.Option(help="Name of the card.")],
    version: Annotated[str, typer.Option(help="Raise it when the card changes.")] = "1.0.0",
    half: Annotated[bool, typer.Option("--half", help="Store float16.")] = False,
    limitations: Annotated[str, typer.Option(help="Added to what the data set says of itself.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the card of this name.")] = False,
) -> None:
    """Make a card from a run. Example: `zoo publish runs/nearl_clip/chest_drr_16shot --name nearl-clip-chest-drr`."""
    from zoo.cards.publish import publish as make_card

    with reported():
        folder = make_card(run, name, version=version, half=half, limitations=limitations, replace=replace)
        console.print(f"wrote {folder}\nnext: zoo verify {name}")


@app.command()
def verify(
    cards: Annotated[list[str] | None, typer.Argument(help="cards")] = None,
    every: Annotated[bool, typer.Option("--all", help="All cards at hand.")] = False,
    as_json: Json = False,
) -> None:
    """Measure cards' numbers again; fails where one does not hold. Example: `zoo verify --all`."""
    from zoo.cards.store import list_cards
    from zoo.cards.verify import verify as measure_again

    names = list_cards() if every else cards or []
    if not names:
        errors.print("name a card, or say --all")
        raise typer.Exit(2)
    with reported():
        checked = [result for name in names for result in measure_again(name)]
    failed = [result for result in checked if not result.holds]
    if as_json:
        print_json([{**asdict(result), "holds": result.holds} for result in checked])
    else:
        rows = [
            [c.card, c.metric.name, f"{c.metric.value:.4f}", f"{c.measured:.4f}", "yes" if c.holds else "NO"]
            for c in checked
        ]
        print_table("verified", ["card", "metric", "card says", "measured", "holds"], rows)
    if failed:
        errors.print(f"{len(failed)} of {len(checked)} numbers do not hold")
        raise typer.Exit(1)


@app.command()
def push(
    card: Annotated[str, typer.Argument(help="a card")], repo: Annotated[str, typer.Argument(help="OWNER/NAME")]
) -> None:
    """Upload a card to the Hugging Face Hub, with your own token. Example: `zoo push my-card me/my-card`."""
    from zoo.cards.hub import push as upload

    with reported():
        console.print(upload(card, repo))


@app.command()
def pull(
    repo: Annotated[str, typer.Argument(help="OWNER/NAME, or a folder")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
) -> None:
    """Fetch a card into the cache, hashes checked. Example: `zoo pull me/my-card`."""
    from zoo.cards.hub import pull as fetch

    with reported():
        console.print(f"wrote {fetch(repo, revision)}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo_output"),
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0",
) -> None:
    """From a CT in a package to a table of NEARL-CLIP beside its peers, and a prediction as a picture. Example: `zoo demo`."""
    from zoo.demo import run_demo

    with reported():
        run_demo(out, _numbers(seeds), console)


if __name__ == "__main__":
    app()
