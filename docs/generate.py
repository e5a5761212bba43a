"""Writes all that comes from a record: tables, lists of components and cards in README and docs, and the package's stub.

``python docs/generate.py`` writes; ``--check`` only says whether something is stale (a test runs it).
"""

import json
import re
import sys
from pathlib import Path

import zoo
from zoo.cards.store import list_cards, read_card
from zoo.metrics.intervals import Measured
from zoo.registry import KINDS, component_classes, registry
from zoo.visualization.tables import Row, markdown_table

ROOT = Path(__file__).parent.parent


def table(wanted: str) -> str:
    """A comparison's table from ``docs/tables/NAME.json``: "NAME", or "NAME metric metric..." for some of its metrics."""
    name, *metrics = wanted.split()
    content = json.loads((ROOT / "docs" / "tables" / f"{name}.json").read_text(encoding="utf-8"))
    rows = [
        Row(
            row["recipe"],
            row["setting"],
            row["seeds"],
            {key: Measured(**row["metrics"][key]) for key in metrics or row["metrics"] if key in row["metrics"]},
        )
        for row in content
    ]
    return markdown_table(rows)


def components() -> str:
    """Every component with the first line of its docstring."""
    lines = ["| kind | name | what |", "| --- | --- | --- |"]
    for kind in KINDS:
        for name in registry(kind):
            component = registry(kind).resolve(name)
            first = (component.__doc__ or "").strip().splitlines()[0]
            lines.append(f"| {kind} | [`{name}`](api/{component.__module__}.md) | {first} |")
    return "\n".join(lines) + "\n"


def cards() -> str:
    """Every shipped card with its first metric."""
    lines = ["| card | method | trained on | parameters trained | first metric |", "| --- | --- | --- | --- | --- |"]
    for name in list_cards():
        record = read_card(name).record
        metric = record.metrics[0]
        value = f"{metric.name} {metric.value:.3f} ({metric.interval[0]:.3f} to {metric.interval[1]:.3f})"
        lines.append(f"| {name} | {record.method} | {record.data.name} | {record.parameters_trained:,} | {value} |")
    return "\n".join(lines) + "\n"


def plans() -> str:
    """The memory of the full-size recipes from ``docs/tables/plans.json``, which ``--plans`` measures anew."""
    content = json.loads((ROOT / "docs" / "tables" / "plans.json").read_text(encoding="utf-8"))
    parts = list(content[0]["memory"])
    lines = [
        "| recipe | parameters | trained | precision, strategy, devices | " + " | ".join(parts) + " | peak |",
        "| --- | --- | --- | --- |" + " --- |" * (len(parts) + 1),
    ]
    for row in content:
        sizes = [f"{row['memory'][part] / 1e9:.1f}" for part in parts] + [f"{row['total_memory'] / 1e9:.1f}"]
        setting = f"{row['precision']}, {row['strategy']}, {row['devices']}"
        total, trained = row["parameters"]
        name, millions = row["recipe"], f"{total / 1e6:,.0f} M | {trained / 1e6:,.1f} M"
        lines.append(f"| {name} | {millions} | {setting} | " + " | ".join(sizes) + " |")
    return "\n".join(lines) + "\n"


def measure_plans() -> None:
    """Plan every full-size recipe that differs in more than its data, and write ``docs/tables/plans.json``."""
    from dataclasses import asdict

    from zoo.config.recipe import list_recipes, read_recipe
    from zoo.engine.planning import plan

    names = [name for name in list_recipes() if "chest_drr" not in name]
    first = {
        repr([{**(c := read_recipe(name).content)["method"], "template": ""}, c["trainer"]]): name
        for name in names[::-1]
    }
    rows = []
    for name in sorted(first.values()):
        made = plan(read_recipe(name))
        facts = {key: value for key, value in asdict(made).items() if key not in ("components", "notes", "flops")}
        rows.append({"recipe": name, **facts, "parameters": made.parameters, "total_memory": made.peak})
    text = json.dumps(rows, indent=1) + "\n"
    (ROOT / "docs" / "tables" / "plans.json").write_text(text, encoding="utf-8")


def filled(text: str) -> str:
    """The text with every generated block written anew."""

    def block(match: re.Match[str]) -> str:
        kind, _, name = match.group(1).partition(" ")
        content = {"table": lambda: table(name), "components": components, "cards": cards, "plans": plans}[kind]()
        return f"<!-- {match.group(1)} -->\n{content}<!-- end -->"

    return re.sub(r"<!-- ((?:table|components|cards|plans)[^>]*?) -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)


def api_pages() -> dict[Path, str]:
    """A page for every module that holds a component, made from docstrings by mkdocstrings."""
    modules = {registry(kind).target(name).partition(":")[0] for kind in KINDS for name in registry(kind)}
    return {ROOT / "docs" / "api" / f"{module}.md": f"# {module}\n\n::: {module}\n" for module in sorted(modules)}


def stub() -> str:
    """The package's lazy names for type checkers: the public ones and the zoo's own components."""
    modules = dict(zoo._PUBLIC)
    for attribute, (kind, name) in component_classes().items():
        module = registry(kind).target(name).partition(":")[0]
        if module.startswith("zoo."):  # others are offered by packages that happen to be installed here
            modules.setdefault(attribute, module)
    lines = [f"from {module} import {name} as {name}" for module, name in sorted((m, n) for n, m in modules.items())]
    names = "".join(f'    "{name}",\n' for name in sorted(zoo.__all__))
    head = '"""The lazy names of the package, for type checkers; written by docs/generate.py."""\n\n'
    imports = "\n".join(["from zoo import registry as registry", *lines])
    return f"{head}{imports}\n\n__version__: str\n__all__ = [\n{names}]\n"


def wanted() -> dict[Path, str]:
    """Every generated file with the content it should have."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return (
        {path: filled(path.read_text(encoding="utf-8")) for path in pages}
        | api_pages()
        | {ROOT / "zoo" / "__init__.pyi": stub()}
    )


def main(check: bool) -> int:
    """Write, or say what is stale."""
    stale = [path for path, text in wanted().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{'stale' if check else 'wrote'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted()[path], encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    if "--plans" in sys.argv:
        measure_plans()
    sys.exit(main("--check" in sys.argv))
