"""Write everything in README and docs that comes from a record: tables, lists, the command line, badges, the package's stub.

``python docs/generate.py`` writes; ``--check`` only reports stale files (a test runs it); ``--plans`` plans the full-size
recipes again.
"""

import inspect
import json
import re
import sys
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import zoo
from zoo.cards.schema import CardRecord
from zoo.cards.store import read_card
from zoo.config.deprecations import RENAMED_COMPONENTS, RENAMED_KEYS
from zoo.engine.descriptions import summary_of
from zoo.metrics.intervals import Measured
from zoo.registry import KINDS, component_classes, registry

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TABLES = DOCS / "tables"

METHODS = {
    "zero_shot/chest_drr_16shot": "zero-shot CLIP",
    "clip_adapter/chest_drr_16shot": "CLIP-Adapter",
    "lp_plus_plus/chest_drr_16shot": "LP++",
    "taskres/chest_drr_16shot": "TaskRes",
    "cocoop/chest_drr_16shot": "CoCoOp",
    "kgcoop/chest_drr_16shot": "KgCoOp",
    "prograd/chest_drr_16shot": "ProGrad",
    "biomedcoop/chest_drr_16shot": "BiomedCoOp",
    "coop/chest_drr_16shot": "CoOp",
    "tip_adapter/chest_drr_16shot": "Tip-Adapter",
    "maple/chest_drr_16shot": "MaPLe",
    "lora/chest_drr_16shot": "LoRA",
    "tip_adapter_f/chest_drr_16shot": "Tip-Adapter-F",
    "linear_probe/chest_drr_16shot": "linear probe",
    "nearl_clip/chest_drr_16shot": "NEARL",
    "nearl_clip/chest_drr_16shot_without_useformer": "without the USEformer's token mixing",
    "nearl_clip/chest_drr_16shot_not_orthogonal": "without orthogonality (scale 1)",
    "nearl_clip/chest_drr_16shot_half_incremental": "half of the parallel part (scale 0.5)",
    "nearl_clip/chest_drr_16shot_image_to_text": "text tower only",
    "interleaved_reasoning/chest_drr_none": "none: report only",
    "interleaved_reasoning/chest_drr_text": "text",
    "interleaved_reasoning/chest_drr_box": "box",
    "interleaved_reasoning/chest_drr_crop": "crop",
    "interleaved_reasoning/chest_drr_generated": "generated image",
    "interleaved_reasoning/chest_drr_vl_none": "none: report only",
    "interleaved_reasoning/chest_drr_vl_text": "text",
    "interleaved_reasoning/chest_drr_vl_box": "box",
    "interleaved_reasoning/chest_drr_vl_crop": "crop",
    "medseg_r/chest_drr": "MedSeg-R",
    "medseg_r/chest_drr_reject": "MedSeg-R with [REJ]",
    "medseg_r/chest_drr_oracle": "oracle: named target, same mask head",
    "medseg_r/chest_drr_unet": "U-Net (baseline)",
}
"""Recipes of the tables, as a table's row names them."""

METRICS = {
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "clinical_f1": "clinical F1",
    "clinical_macro_f1": "clinical macro F1",
    "bleu4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "region_iou": "region IoU",
    "psnr": "PSNR (dB)",
    "giou": "gIoU",
    "ciou": "cIoU",
    "dice": "Dice",
    "other_side_recognised": "contralateral recognised",
    "missing_seg": "missing [SEG]",
    "superfluous_seg": "superfluous [SEG]",
    "missing_rej": "missing [REJ]",
    "superfluous_rej": "superfluous [REJ]",
}
"""Metrics, as a table's head names them; others lose their underscores."""


def metric_title(name: str) -> str:
    """A metric's name for people: the longest part that has a title, and the other words."""
    words = name.split("_")
    for count in range(len(words), 0, -1):
        if title := METRICS.get("_".join(words[:count])):
            return " ".join([title, *words[count:]])
    return " ".join(words)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def results(spec: str) -> str:
    """The table ``docs/tables/NAME.json`` in per cent with 95% intervals: "NAME", or "NAME metric metric..."."""
    name, *chosen = spec.split()
    content = json.loads((TABLES / f"{name}.json").read_text(encoding="utf-8"))
    names = chosen or list(dict.fromkeys(metric for row in content for metric in row["metrics"]))
    rows = [row for row in content if any(metric in row["metrics"] for metric in names)]
    seeds = [len(row["seeds"]) for row in rows]
    head = ["method", *(["seeds"] if len(set(seeds)) > 1 else []), *map(metric_title, names)]
    cells = [
        [METHODS.get(row["recipe"], row["recipe"]), *([str(count)] if "seeds" in head else [])]
        + [percent(Measured(**row["metrics"][metric])) if metric in row["metrics"] else "" for metric in names]
        for row, count in zip(rows, seeds, strict=True)
    ]
    return markdown(head, cells)


def percent(measured: Measured) -> str:
    """A share in per cent with its interval; empty where there was nothing to measure."""
    if measured.value != measured.value:
        return ""
    return f"{100 * measured.value:.1f} ({100 * measured.low:.1f} to {100 * measured.high:.1f})"


def components(spec: str) -> str:
    """Every component in one line."""
    rows = []
    for kind in KINDS:
        for name in registry(kind):
            module = registry(kind).target(name).partition(":")[0]
            rows.append([kind, f"[`{name}`](api/{module}.md)", summary_of(kind, name)])
    return markdown(["kind", "name", "description"], rows)


def _card_records() -> list[CardRecord]:
    return [read_card(ROOT / "checkpoints" / path.parent.name).record for path in _card_readmes()]


def _card_readmes() -> list[Path]:
    return sorted((ROOT / "checkpoints").glob("*/README.md"))


def main_metric(record: CardRecord) -> str:
    """The first metric of a card with its interval."""
    metric = record.metrics[0]
    low, high = metric.interval
    return f"{metric_title(metric.name)} {metric.value:.3f} ({low:.3f} to {high:.3f})"


def models(place: str) -> str:
    """Every shipped card with its first metric; links lead to the cards, from docs to the page of models."""
    link = "checkpoints/{}/README.md" if place == "readme" else "models.md#{}"
    rows = [
        [
            f"[{record.name}]({link.format(record.name)})",
            f"`{record.method}`",
            f"`{record.data.name}`",
            f"{_millions(record.parameters_trained)} of {_millions(record.parameters_total)}",
            main_metric(record),
        ]
        for record in _card_records()
    ]
    return markdown(["card", "method", "data", "trained parameters", "test result (95% interval)"], rows)


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def cards(spec: str) -> str:
    """A section for every shipped card."""
    sections = []
    for record in _card_records():
        facts = {
            "Method": f"`{record.method}`, version {record.version}",
            "Base": record.base.name if record.base else "none",
            "Input": record.input,
            "Output": record.output,
            "Training": record.trained_with,
            "Weights": f"{record.license}, {sum(file.size for file in record.files) / 1e6:.1f} MB",
        }
        lines = "\n".join(f"- **{key}:** {value}" for key, value in facts.items())
        rows = [
            [
                metric_title(metric.name),
                f"{metric.value:.4f}",
                f"{metric.interval[0]:.4f} to {metric.interval[1]:.4f}",
                str(metric.n),
            ]
            for metric in record.metrics
        ]
        table = markdown(["metric (test split)", "value", "95% interval", "n"], rows)
        sections.append(
            f"## {record.name}\n\n{record.intended_use}\n\n{lines}\n\n{table}\n**Limitations.** {record.limitations}\n"
        )
    return "\n" + "\n".join(sections)


def plans(spec: str) -> str:
    """The memory of the full-size recipes from ``docs/tables/plans.json``, which ``--plans`` writes."""
    content = json.loads((TABLES / "plans.json").read_text(encoding="utf-8"))
    parts = list(content[0]["memory"])
    rows = []
    for row in content:
        total, trained = (
            f"{count / 1e6:,.{digits}f} M" for count, digits in zip(row["parameters"], (0, 1), strict=True)
        )
        sizes = [f"{size / 1e9:.1f}" for size in (*(row["memory"][part] for part in parts), row["total_memory"])]
        rows.append([row["recipe"], total, trained, f"{row['precision']}, {row['strategy']}, {row['devices']}", *sizes])
    return markdown(["recipe", "parameters", "trained", "precision, strategy, devices", *parts, "peak"], rows)


def plan_full_size_recipes() -> None:
    """Plan every full-size recipe that differs in more than its data, and write ``docs/tables/plans.json``."""
    from dataclasses import asdict

    from zoo.config.recipe import list_recipes, read_recipe
    from zoo.engine.planning import plan

    names = [
        name for name in list_recipes() if "chest_drr" not in name and "official" not in name
    ]  # those differ little
    first = {
        repr([{**(c := read_recipe(name).content)["method"], "template": ""}, c["trainer"]]): name
        for name in names[::-1]
    }
    rows = []
    for name in sorted(first.values()):
        result = plan(read_recipe(name))
        fields = {key: value for key, value in asdict(result).items() if key not in ("components", "notes", "flops")}
        rows.append({"recipe": name, **fields, "parameters": result.parameters, "total_memory": result.peak})
    (TABLES / "plans.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def families(spec: str) -> str:
    """Vision-language families from ``docs/tables/families.json``, which ``measure_families.py`` writes."""
    rows = json.loads((TABLES / "families.json").read_text(encoding="utf-8"))
    numbers = [
        [row.pop("family"), f"{row.pop('generated')} of 2", *(f"{value:.1g}" for value in row.values())] for row in rows
    ]
    return markdown(["family", "same answers", "deviation", "one image", "three", "padded right", "left"], numbers)


def commands(spec: str) -> str:
    """Every command of the command line with its arguments and options, from its signature."""
    from zoo.cli.app import app

    return "\n" + "\n".join(f"{_command(name, callback)}" for name, callback in sorted(_commands(app, "zoo")))


def _commands(app: typer.Typer, prefix: str) -> Iterator[tuple[str, Any]]:
    for command in app.registered_commands:
        if command.callback is not None:
            yield f"{prefix} {command.name or command.callback.__name__}", command.callback
    for group in app.registered_groups:
        if group.typer_instance is not None:
            inner = f"{prefix} {group.name}" if isinstance(group.name, str) else prefix
            yield from _commands(group.typer_instance, inner)


def _command(name: str, callback: Any) -> str:
    hints = typing.get_type_hints(callback, include_extras=True)
    usage, rows = [name], []
    for key, parameter in inspect.signature(callback).parameters.items():
        annotation, information = typing.get_args(hints[key])[:2]
        required = parameter.default is inspect.Parameter.empty
        several = "list[" in str(annotation)
        if isinstance(information, typer.models.ArgumentInfo):
            shown = key.upper() + ("..." if several else "")
            usage.append(shown if required else f"[{shown}]")
        else:
            given = [str(text) for text in (information.default, *(information.param_decls or ())) if text is not None]
            shown = next((text for text in given if text.startswith("--")), f"--{key.replace('_', '-')}")
            usage += [f"{shown} {_type_name(annotation).upper()}"] if required else []
        default = "required" if required else "" if parameter.default in (None, False, "") else f"`{parameter.default}`"
        rows.append([f"`{shown}`", _type_name(annotation), default, str(information.help or "")])
    text = inspect.getdoc(callback) or ""
    return f"## {name}\n\n{text}\n\n```sh\n{' '.join(usage)}\n```\n\n{markdown(['name', 'type', 'default', 'meaning'], rows)}"


def _type_name(annotation: Any) -> str:
    """The type of an argument in words; of an option that may be left out, the type of its value."""
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(map(str, typing.get_args(annotation)))
    inner = [argument for argument in typing.get_args(annotation) if argument is not type(None)]
    if inner:
        return _type_name(inner[0])
    return {bool: "flag", str: "text", int: "number", float: "number", Path: "path"}[annotation]


def renames(spec: str) -> str:
    """Every renamed component and key, with the version since which the new name is read."""
    rows = [[renamed.kind, "", f"`{renamed.old}`", f"`{renamed.new}`", renamed.since] for renamed in RENAMED_COMPONENTS]
    rows += [
        [key.kind, f"`{key.component}`" if key.component else "all", f"`{key.old}`", f"`{key.new}`", key.since]
        for key in RENAMED_KEYS
    ]
    return markdown(["kind", "component", "earlier name", "name", "since"], rows)


BLOCKS = {
    "renames": renames,
    "table": results,
    "components": components,
    "models": models,
    "cards": cards,
    "plans": plans,
    "families": families,
    "commands": commands,
}
_BLOCK = re.compile(rf"<!-- ((?:{'|'.join(BLOCKS)})\b[^>]*?) -->\n.*?<!-- end -->", flags=re.DOTALL)


def fill(text: str) -> str:
    """The text with every generated block written again."""

    def block(match: re.Match[str]) -> str:
        kind, _, spec = match.group(1).partition(" ")
        return f"<!-- {match.group(1)} -->\n{BLOCKS[kind](spec)}<!-- end -->"

    return _BLOCK.sub(block, text)


def api_pages() -> dict[Path, str]:
    """A page for every module that holds a component; mkdocstrings fills it from docstrings."""
    modules = {registry(kind).target(name).partition(":")[0] for kind in KINDS for name in registry(kind)}
    return {DOCS / "api" / f"{module}.md": f"# {module}\n\n::: {module}\n" for module in sorted(modules)}


def badges() -> dict[Path, str]:
    """Badges of what pyproject.toml says, as files, so that no service is asked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lightning = next(item for item in project["dependencies"] if item.startswith("lightning"))
    content = {
        "licence": ("licence", project["license"], "#3b6ea5"),
        "python": ("python", project["requires-python"].replace(">=", "≥ "), "#2d7d46"),
        "lightning": ("PyTorch Lightning", lightning.removeprefix("lightning").replace(">=", "≥ "), "#792ee5"),
        "typed": ("typing", "checked by mypy", "#2d7d46"),
    }
    return {DOCS / "pictures" / "badges" / f"{name}.svg": _badge(*values) for name, values in content.items()}


def _badge(label: str, value: str, color: str) -> str:
    left, right = (round(7 * len(text)) + 14 for text in (label, value))
    texts = "".join(
        f'<text x="{x}" y="14" text-anchor="middle">{text}</text>'
        for x, text in ((left / 2, label), (left + right / 2, value))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{label}: {value}">'
        f'<rect width="{left + right}" height="20" rx="3" fill="#444"/>'
        f'<path d="M{left} 0h{right - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{right - 3}z" fill="{color}"/>'
        f'<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">{texts}</g></svg>\n'
    )


def stub() -> str:
    """The package's lazy names for type checkers: the public ones and the zoo's own components."""
    modules = dict(zoo._PUBLIC)
    for attribute, (kind, name) in component_classes().items():
        module = registry(kind).target(name).partition(":")[0]
        if module.startswith("zoo."):  # other packages may offer components here
            modules.setdefault(attribute, module)
    lines = [f"from {module} import {name} as {name}" for module, name in sorted((m, n) for n, m in modules.items())]
    names = "".join(f'    "{name}",\n' for name in sorted(zoo.__all__))
    head = '"""The lazy names of the package, for type checkers; written by docs/generate.py."""\n\n'
    imports = "\n".join(["from zoo import registry as registry", *lines])
    return f"{head}{imports}\n\n__version__: str\n__all__ = [\n{names}]\n"


def expected_files() -> dict[Path, str]:
    """Every generated file with the content that it should have."""
    pages = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    filled = {path: fill(path.read_text(encoding="utf-8")) for path in pages}
    return filled | api_pages() | badges() | {ROOT / "zoo" / "__init__.pyi": stub()}


def main(check: bool) -> int:
    """Write stale files, or only report them; pages of modules that are gone are removed."""
    expected = expected_files()
    stale = [path for path, text in expected.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    gone = [path for path in (DOCS / "api").glob("*.md") if path not in api_pages()]
    for path in stale + gone:
        done = "removed" if path in gone else "wrote"
        print(f"{'stale' if check else done}: {path.relative_to(ROOT)}")
    if not check:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(expected[path], encoding="utf-8")
        for path in gone:
            path.unlink()
    return 1 if check and stale + gone else 0


if __name__ == "__main__":
    if "--plans" in sys.argv:
        plan_full_size_recipes()
    sys.exit(main("--check" in sys.argv))
