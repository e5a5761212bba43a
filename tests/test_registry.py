import os
import shutil
import subprocess
import sys

import pytest

from zoo.paths import PACKAGE
from zoo.registry import (
    KINDS,
    DuplicateComponentError,
    Registry,
    UnknownComponentError,
    components_in,
    register,
    registry,
)


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=True
    )
    return done.stdout


def test_names_resolve_without_importing_torch():
    code = (
        "import sys, zoo; from zoo.registry import registry; print(list(registry('adapter')), 'torch' in sys.modules)"
    )
    out = run_python(code)
    assert "oca" in out and out.strip().endswith("False")


@pytest.mark.parametrize("kind", KINDS)
def test_every_component_resolves_and_is_documented(kind):
    for name in registry(kind):
        component = registry(kind).resolve(name)
        assert component.__doc__ and component.__module__.startswith("zoo.")


def test_unknown_names_get_the_nearest_ones():
    with pytest.raises(UnknownComponentError, match="no adapter is named 'usformer'; did you mean useformer"):
        registry("adapter").resolve("usformer")
    with pytest.raises(UnknownComponentError, match="did you mean adapter"):
        registry("adaptor")


def test_duplicates_are_refused():
    adapters = Registry("adapter")
    adapters.add("oca", "a:B")
    adapters.add("oca", "a:B")
    with pytest.raises(DuplicateComponentError, match="adapter 'oca' is already registered as a:B"):
        adapters.add("oca", "c:D")


def test_a_mistaken_entry_point_is_named_and_not_the_decorator():
    adapters = Registry("adapter")
    adapters.add("wave", "waves:Wav", offered=True)
    with pytest.raises(
        DuplicateComponentError, match="entry point 'adapter.wave' names waves:Wav, and .* is waves:Wave;"
    ):
        adapters.add("wave", "waves:Wave")
    with pytest.raises(DuplicateComponentError, match="another.module:Wave needs another name"):
        adapters.add("wave", "another.module:Wave")


def test_the_decorator_refuses_a_taken_name():
    with pytest.raises(DuplicateComponentError, match="needs another name"):
        register("adapter", "oca")(type("Other", (), {}))


def test_a_components_own_error_is_not_an_unknown_name(monkeypatch, tmp_path):
    (tmp_path / "needs_more.py").write_text("import a_package_that_is_not_there\nclass Thing: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry("adapter")._targets, "broken", "needs_more:Thing")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        registry("adapter").resolve("broken")


def test_another_package_offers_components(tmp_path):
    (tmp_path / "tiny_parts.py").write_text(
        "class Wave:\n    'A wave.'\n    def __init__(self, height: int = 3): self.height = height\n"
    )
    info = tmp_path / "tiny_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo.components]\nadapter.wave = tiny_parts:Wave\n")
    code = "from zoo.config.building import build; print(build('adapter', {'name': 'wave', 'height': 5}).height)"
    assert run_python(code, PYTHONPATH=str(tmp_path)).strip() == "5"


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ("adapter.wave = tiny_prats:Wave", "UnknownComponentError: adapter 'wave' is registered as 'tiny_prats:Wave'"),
        ("adapter.wave = json:Wave", "which does not exist: module 'json' has no attribute 'Wave'"),
        (
            "adapter.wave = waves:Wav",
            "DuplicateComponentError: the entry point 'adapter.wave' names waves:Wav, and the component registered by that",
        ),
        ("adaptor.wave = json:loads", "broken offers 'adaptor.wave', which is not KIND.NAME; did you mean adapter?"),
        ("wave = json:loads", "broken offers 'wave', which is not KIND.NAME"),
    ],
)
def test_a_broken_offer_is_named_and_leaves_the_rest_alone(point, expected, tmp_path):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[zoo.components]\n{point}\n")
    (tmp_path / "waves.py").write_text(
        "from zoo.registry import register\n@register('adapter', 'wave')\nclass Wave: 'A wave.'"
    )
    code = "from zoo.registry import registry\nassert 'oca' in registry('adapter')\nregistry('adapter').resolve('wave')"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{PACKAGE.parent}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert expected in done.stderr


def test_component_classes_are_importable_from_zoo():
    import zoo
    from zoo.adapters.useformer import USEformer

    assert zoo.USEformer is USEformer
    assert "OrthogonalCrossAttention" in dir(zoo)
    with pytest.raises(AttributeError):
        _ = zoo.NoSuchThing


def test_scan_finds_every_decorated_component():
    import re

    decorated = sum(len(re.findall(r"^@register\(", path.read_text(), re.MULTILINE)) for path in PACKAGE.rglob("*.py"))
    assert decorated == sum(len(list(registry(kind))) for kind in KINDS)


FORMS = {
    "single quotes": "from zoo.registry import register\n@register('adapter', \"x\")\nclass X: ...",
    "several lines": "from zoo.registry import register\n@register(\n    'adapter',  # kind\n    'x',\n)\nclass X: ...",
    "keywords": "from zoo.registry import register\n@register(name='x', kind='adapter')\nclass X: ...",
    "one keyword": "from zoo.registry import register\n@register('adapter', name='x')\nclass X: ...",
    "below others": "from zoo.registry import register\n@final\n@register('adapter', 'x')\nclass X: ...",
    "above others": "from zoo.registry import register\n@register('adapter', 'x')\n@final(\n)\ndef X(): ...",
    "the module": "import zoo.registry\n@zoo.registry.register('adapter', 'x')\nclass X: ...",
    "the package": "import zoo\n@zoo.register('adapter', 'x')\nclass X: ...",
    "another name": "from zoo.registry import register as component\n@component('adapter', 'x')\nclass X: ...",
    "the module by another name": "import zoo.registry as parts\n@parts.register('adapter', 'x')\nclass X: ...",
    "from the package": "from zoo import registry\n@registry.register('adapter', 'x')\nclass X: ...",
    "where it can be imported": (
        "from zoo.registry import register\ntry:\n    import torch\nexcept ImportError:\n    pass\n"
        "else:\n    @register('adapter', 'x')\n    class X: ..."
    ),
    "windows line breaks": "from zoo.registry import register\r\n@register('adapter', 'x')\r\nclass X: ...\r\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_component_is_found_however_its_decorator_is_written(form, tmp_path):
    (tmp_path / "part.py").write_bytes(FORMS[form].encode())
    assert list(components_in(tmp_path, "tiny")) == [("adapter", "x", "tiny.part:X")]


def test_stacked_decorators_give_two_names_and_a_package_its_own_module(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    code = "from ...registry import register\n@register('adapter', 'x')\n@register('head', 'y')\nclass X: ..."
    (folder / "__init__.py").write_text(code)
    assert list(components_in(tmp_path, "zoo.tiny")) == [
        ("adapter", "x", "zoo.tiny.parts:X"),
        ("head", "y", "zoo.tiny.parts:X"),
    ]


@pytest.mark.parametrize(
    "code",
    [
        "import atexit\n@atexit.register('adapter', 'x')\ndef X(): ...",
        'text = """\n@register("adapter", "x")\nclass X: ...\n"""',
        "# @register('adapter', 'x')\nclass X: ...",
        "from zoo.registry import register\ndef make():\n    @register('adapter', 'x')\n    class X: ...",
    ],
    ids=["another register", "text", "comment", "inside a function"],
)
def test_what_only_looks_like_a_component_is_none(code, tmp_path):
    (tmp_path / "part.py").write_text(code)
    assert list(components_in(tmp_path, "tiny")) == []


@pytest.mark.parametrize(
    "content",
    [
        b"from zoo.registry import register\n@register('adapter', 'x'\nclass X: ...",
        b"from zoo.registry import register\nNAME = 'x'\n@register('adapter', NAME)\nclass X: ...",
        b"from zoo.registry import register\n@register('adapter')\nclass X: ...",
        b"# register \xff\xfe",
        b"# register \0",
        b"register = " + b"-" * 100_000 + b"1",
    ],
    ids=["syntax", "no literal", "no name", "encoding", "null byte", "nesting"],
)
def test_a_malformed_file_is_skipped_with_a_warning(content, tmp_path):
    (tmp_path / "broken.py").write_bytes(content)
    (tmp_path / "part.py").write_text(FORMS["keywords"])
    with pytest.warns(UserWarning, match="broken.py is skipped"):
        assert list(components_in(tmp_path, "tiny")) == [("adapter", "x", "tiny.part:X")]


def test_zoo_list_survives_a_malformed_file(tmp_path):

    shutil.copytree(PACKAGE, tmp_path / "zoo", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "zoo" / "adapters" / "broken.py").write_text("from zoo.registry import register\n@register(\n")
    command = [sys.executable, "-m", "zoo.cli", "list", "components"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0 and "useformer" in done.stdout and "broken.py is skipped" in done.stderr


def test_import_and_list_are_quick():
    """The least of three: seconds of the processor, so that a busy machine does not fail it."""

    def seconds(*arguments: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])

    assert min(seconds("-c", "import zoo") for _ in range(3)) < 0.3
    assert min(seconds("-m", "zoo.cli", "list") for _ in range(3)) < 1.0
