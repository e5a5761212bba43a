"""Commands on data: build, check, convert, accept."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from zoo.cli.console import Json, Settings, console, errors, print_facts, print_json, report_errors, split_settings
from zoo.errors import counted

commands = typer.Typer(help="Prepare data sets.", no_args_is_help=True)


@commands.command("build")
def data_build(name: Annotated[str, typer.Argument(help="a dataset")], settings: Settings = None) -> None:
    """Prepare a data set in the cache. Example: `zoo data build chest_drr size=2000 image_size=256`.

    From your own chest CT: `zoo data build chest_drr ct=patient.nii.gz labels=labels.nii.gz`
    """
    from zoo.engine.datasets import prepare_dataset

    with report_errors():
        report = prepare_dataset(name, settings or [])
        for split, count in report.counts.items():
            console.print(f"{split}: {counted(count, 'sample')}")
        rate = f", {report.rate:.1f} samples/s" if report.seconds > 1 else ": all in the cache"
        console.print(f"{report.seconds:.1f} s{rate}")


@commands.command("check")
def data_check(
    names: Annotated[
        list[str],
        typer.Argument(help="files, folders, or one dataset or form with its arguments as key=value"),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for data.html, a page of pictures with masks and boxes.")
    ] = None,
    all_images: Annotated[bool, typer.Option("--all", help="Open every image, not 200 of them.")] = False,
    as_json: Json = False,
) -> None:
    """Check data of any format, and say what they hold. Example: `zoo data check train.jsonl`.

    Knows traces, conversations, tables, CoOp splits, COCO instances, ReasonSeg, folders, and every form of public data:
    `zoo data check siim_acr table=train-rle.csv images=films --out page`
    """
    from zoo.engine.data_formats import scan_data
    from zoo.engine.headers import read_sizes, sizes_of_boxes
    from zoo.engine.inspection import OPENED, describe_data, open_images, write_page
    from zoo.engine.repeats import report_repeats

    files, settings = split_settings(names)
    if not files:
        raise typer.BadParameter("name a file, a folder, a dataset or a form")
    malformed, facts = 0, {}
    for index, name in enumerate(files):
        with report_errors():
            scanned = scan_data(name, settings)
            report_repeats(scanned.images, scanned.problems)
            sizes, unreadable = read_sizes(scanned.images)
            scanned.problems.messages += unreadable
            if differ := sizes_of_boxes(scanned.images, sizes):
                scanned.problems.note(f"{differ}; train with a number as method.box_frame, as 1000, not with pixels")
            opened = open_images(scanned, None if all_images else OPENED)
            tables = describe_data(scanned.images, opened)
            page = out / str(index) if out is not None and len(files) > 1 else out
            shown = None if page is None else write_page(name, scanned.problems, tables, opened, page)
        problems = scanned.problems
        facts[name] = {"form": scanned.form, "problems": problems.messages, "notes": problems.notes, **tables}
        malformed += len(problems.messages)
        if not as_json:
            valid = max(len(scanned.images) - len(unreadable), 0)
            _print_data(name, scanned.form, valid, problems.messages, problems.notes)
            for title, rows in tables.items():
                print_facts({title: rows})
            console.print(f"opened {len(opened)} of {counted(len(scanned.images), 'image')}", highlight=False)
            if shown is not None:
                console.print(f"wrote {shown}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json(facts)
    if malformed:
        raise typer.Exit(1)


def _print_data(name: str, form: str, count: int, problems: list[str], notes: list[str]) -> None:
    for problem in problems:
        errors.print(problem, markup=False, highlight=False, soft_wrap=True)
    for note in notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    summary = f"{name}: {form}; {counted(count, 'record', 'is')} valid, {counted(len(problems), 'problem')}"
    console.print(summary, markup=False, highlight=False, soft_wrap=True)


@commands.command("convert")
def data_convert(
    form: Annotated[str, typer.Argument(help="a form of files, as siim_acr, mask_images or chest_imagenome")],
    settings: Annotated[list[str], typer.Argument(help="its arguments, as table=train-rle.csv images=films")],
    out: Annotated[Path, typer.Option(help="Folder for train.jsonl, val.jsonl and test.jsonl.")],
    to: Annotated[
        Literal["conversations", "traces"], typer.Option(help="Questions about masks, or reports with steps.")
    ] = "conversations",
    questions: Annotated[Path | None, typer.Option(help="YAML file of templates for questions and answers.")] = None,
    absent: Annotated[int, typer.Option(min=0, help="Questions about absent findings for each image.")] = 0,
    prompts: Annotated[
        Literal["report", "question"], typer.Option(help="What a trace answers: a request, or the image's question.")
    ] = "report",
    max_steps: Annotated[int, typer.Option(min=0, help="Steps of a trace.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Picks templates; divides data without splits by patient.")] = 0,
    review: Annotated[bool, typer.Option("--review", help="Write drafts and review.csv, for zoo data accept.")] = False,
    endpoint: Annotated[
        str | None, typer.Option(help="OpenAI-compatible endpoint that rewords, as http://localhost:8000/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the endpoint's model.")] = None,
    api_key: Annotated[str | None, typer.Option(help="Environment variable with the endpoint's key.")] = None,
) -> None:
    """Convert public data to records. Example: `zoo data convert siim_acr table=train-rle.csv images=films --out siim --review`.

    Traces: `zoo data convert chest_imagenome graphs=scene_graph images=mimic-cxr-jpg --to traces --out traces`
    """
    from zoo.engine.conversion import build_source, convert_to_conversations, convert_to_traces
    from zoo.engine.rewriting import Rewriter

    if (endpoint is None) != (model is None):
        raise typer.BadParameter("--endpoint and --model go together")
    with report_errors():
        source = build_source(form, settings)
        if to == "traces":
            done = convert_to_traces(source, out, prompts=prompts, max_steps=max_steps, seed=seed)
        else:
            memory = out / "reworded.jsonl"
            rewriter = Rewriter(endpoint, model, memory, api_key) if endpoint and model else None
            options = {"questions": questions, "absent": absent, "seed": seed, "review": review}
            done = convert_to_conversations(source, out, rewriter=rewriter, **options)  # type: ignore[arg-type]
        _print_counts(done.counts)
        if done.kept:
            console.print(f"{counted(done.kept, 'turn')} kept their words, since the endpoint's did not fit")
        if done.review:
            say = f"review {done.review}: write yes into the column accept, then: zoo data accept {out}"
            console.print(say, markup=False, highlight=False, soft_wrap=True)


@commands.command("accept")
def data_accept(
    folder: Annotated[Path, typer.Argument(help="folder of zoo data convert --review")],
    unmarked: Annotated[
        bool, typer.Option("--unmarked", help="Accept what is not marked too, so that only no counts.")
    ] = False,
) -> None:
    """Write the accepted turns of a reviewed conversion as records. Example: `zoo data accept siim`."""
    from zoo.engine.conversion import accept

    with report_errors():
        _print_counts(accept(folder, unmarked).counts)


def _print_counts(counts: dict[str, int]) -> None:
    for split, count in counts.items():
        console.print(f"{split}: {counted(count, 'record')}")
