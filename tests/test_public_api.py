"""The public API: what there is, predictions and measurements in memory, and the names that type checkers know."""

import ast
import doctest
import importlib
import subprocess
import sys

import pytest

import zoo
from zoo.paths import PACKAGE
from zoo.registry import component_classes


def test_every_public_name_is_there():
    assert {"list_models", "list_components", "load", "predict", "evaluate", "ZooError"} <= set(zoo.__all__)
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None and name in dir(zoo)
    assert zoo.ZooError.__module__ == "zoo.errors"


def test_the_registry_is_always_the_module():
    """``zoo.registry`` is a module on disk, so no function of that name could stay an attribute of the package."""
    code = "import zoo; first = zoo.registry; print(first is zoo.registry, 'oca' in first.registry('adapter'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True True"


def test_listing_imports_no_torch():
    code = "import sys, zoo; zoo.list_models(); zoo.list_components(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("module", ["zoo", "zoo.errors", "zoo.engine.api"])
def test_examples_of_docstrings_run(module):
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.attempted and not result.failed


def test_the_stub_names_what_the_package_has():
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = {alias.asname for node in imports for alias in node.names}
    assert names == {*zoo.__all__, *component_classes()} - {"__version__"} and len(names) > 60
    assert (PACKAGE / "py.typed").is_file()


def test_a_misspelt_name_does_not_type_check(tmp_path):
    (tmp_path / "good.py").write_text("import zoo\n\nzoo.USEformer\nzoo.list_models('*')\nzoo.registry.register\n")
    (tmp_path / "bad.py").write_text("import zoo\n\nzoo.USEformr\n")
    command = [sys.executable, "-m", "mypy", "--config-file=", "--cache-dir", str(tmp_path / "cache")]
    files = [str(PACKAGE / "__init__.pyi"), "good.py", "bad.py"]
    done = subprocess.run([*command, "--follow-imports=skip", *files], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[:-1] == ['bad.py:3: error: Module has no attribute "USEformr"  [attr-defined]']
