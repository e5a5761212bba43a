"""Tests mirror the package: ``tests/FOLDER/test_MODULE.py`` for ``zoo/FOLDER/MODULE.py``, without private names."""

import ast
from pathlib import Path

from zoo.paths import PACKAGE

TESTS = Path(__file__).parent
CROSS_CUTTING = {
    "test_contributing.py",
    "test_devices.py",
    "test_docs.py",
    "test_fake_device.py",
    "test_full_size.py",
    "test_imports.py",
    "test_layout.py",
    "test_notebook.py",
    "test_official_peers.py",
    "test_official_recipes.py",
    "test_public_api.py",
    "test_tiny_models.py",
    "test_wheel.py",
    "methods/test_native_lightning.py",
}
"""Tests of several modules together; all in ``faults/`` are: bad input and faults, by their kind."""

_PEERS = ("biomedcoop", "cocoop", "kgcoop", "lp_plus_plus", "prograd", "taskres")
TESTED_ELSEWHERE = {
    "__init__.py": "test_public_api.py",
    "checksums.py": "faults/test_caches.py",
    "files.py": "faults/test_files.py",
    "finite.py": "faults/test_garbage.py",
    "paths.py": "test_wheel.py",
    **{f"adapters/{name}.py": "test_official_peers.py" for name in _PEERS},
}
"""Modules without a test file of their own, and the tests that run them."""
UNTESTED = {"cli/demo.py"}
"""``make demo`` runs it."""


def has_logic(path: Path) -> bool:
    """Whether a module defines a function or class."""
    definitions = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, definitions) for node in ast.parse(path.read_text(encoding="utf-8")).body)


def file_for(module: Path) -> Path:
    relative = module.relative_to(PACKAGE)
    return TESTS / relative.parent / f"test_{relative.name}"


def test_every_test_file_names_a_module():
    files = [
        path
        for path in TESTS.rglob("test_*.py")
        if str(path.relative_to(TESTS)) not in CROSS_CUTTING and path.parent.name != "faults"
    ]
    modules = {file_for(path) for path in PACKAGE.rglob("*.py")}
    assert [str(path.relative_to(TESTS)) for path in files if path not in modules] == []
    assert len(files) > 50 and all((TESTS / name).is_file() for name in CROSS_CUTTING)


def test_every_module_with_logic_has_a_test_file():
    modules = [path for path in PACKAGE.rglob("*.py") if has_logic(path)]
    names = {str(path.relative_to(PACKAGE)) for path in modules if not file_for(path).is_file()}
    assert sorted(names - set(TESTED_ELSEWHERE) - UNTESTED) == []
    assert sorted(set(TESTED_ELSEWHERE) - names) == [], "these have a test file of their own"
    assert all((TESTS / name).is_file() for name in TESTED_ELSEWHERE.values())


def test_tests_import_public_names_only():
    private = []
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("zoo", "tests"):
                private += [f"{path.name}: {alias.name}" for alias in node.names if alias.name.startswith("_")]
    assert private == []
