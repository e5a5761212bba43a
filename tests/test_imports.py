"""Imports run down the floors of the architecture, and importing the zoo stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zoo.paths import PACKAGE

FLOORS = {
    "registry": 1,
    "errors": 1,
    "paths": 1,
    "constants": 1,
    "ranges": 1,
    "checksums": 1,
    "chat_completions": 1,
    "finite": 1,
    "files": 1,
    "image_transform": 1,
    "merging": 1,
    "pretrained": 1,
    "precision": 1,
    "optim": 1,
    "embedding_cache": 1,
    "config": 1,
    "cards": 2,
    "data": 3,
    "encoders": 3,
    "adapters": 4,
    "heads": 4,
    "decoders": 4,
    "language": 4,
    "metrics": 4,
    "visualization": 5,
    "methods": 6,
    "engine": 7,
    "cli": 8,
}
"""Each file or folder of the package with its floor; a file imports from its own folder and from floors below."""


def imported(path: Path) -> Iterator[str]:
    """Names of the zoo's modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "zoo":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "zoo")


def place(module: str) -> str:
    return [*module.split("."), ""][1]


def test_no_import_runs_back_up():
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    checked = 0
    for path in files:
        folder = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        assert folder in FLOORS, f"{path} has no floor"
        for module in imported(path):
            other = place(module)
            if other in ("", folder):
                continue
            checked += 1
            assert other in FLOORS, f"{path} imports {module}, which has no floor"
            level = FLOORS[folder] == FLOORS[other] and FLOORS[folder] in (1, 3, 4)
            assert FLOORS[other] < FLOORS[folder] or level, f"{path} imports {module}, from a floor that is not below"
    assert checked > 200


def test_no_modules_import_one_another_in_a_circle():
    """Imports at the top of files; those inside functions run later."""
    modules = {
        ".".join(("zoo", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in PACKAGE.rglob("*.py")
    }
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        graph[name] = set()
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module:
                graph[name] |= {
                    m for m in (node.module, *(f"{node.module}.{a.name}" for a in node.names)) if m in modules
                }
    done: set[str] = set()

    def walk(name: str, above: list[str]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for other in graph[name]:
                walk(other, [*above, name])
            done.add(name)

    for name in graph:
        walk(name, [])
    assert len(done) == len(modules) > 100


def test_nothing_generic_imports_the_rendered_dataset():
    """What methods, metrics and commands need to know of a dataset, they take from its metadata."""
    importing = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(module.startswith("zoo.data.chest_drr") for module in imported(path))
    }
    assert importing and all(path.startswith("data/chest_drr/") for path in importing), sorted(importing)


@pytest.mark.parametrize(("statement", "absent"), [("import zoo", "torch"), ("import zoo.config.recipe", "torch")])
def test_light_imports_stay_light(statement, absent):
    code = f"import sys\n{statement}\nprint({absent!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
