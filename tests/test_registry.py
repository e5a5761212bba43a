import subprocess
import sys

import pytest

from zoo.registry import KINDS, DuplicateComponentError, Registry, UnknownComponentError, register, registry


def run_python(code: str, **environment: str) -> str:
    import os

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
    own = Registry("adapter")
    own.add("oca", "a:B")
    own.add("oca", "a:B")
    with pytest.raises(DuplicateComponentError, match="adapter 'oca' is a:B already"):
        own.add("oca", "c:D")


def test_the_decorator_refuses_a_taken_name():
    with pytest.raises(DuplicateComponentError, match="needs another name"):
        register("adapter", "oca")(type("Other", (), {}))


def test_a_components_own_error_is_not_an_unknown_name(monkeypatch):
    monkeypatch.setitem(registry("adapter")._targets, "broken", "tests.does_not_exist:Thing")
    with pytest.raises(ModuleNotFoundError):
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


def test_component_classes_are_importable_from_zoo():
    import zoo
    from zoo.adapters.useformer import USEformer

    assert zoo.USEformer is USEformer
    assert "OrthogonalCrossAttention" in dir(zoo)
    with pytest.raises(AttributeError):
        _ = zoo.NoSuchThing


def test_scan_finds_every_decorated_component():
    import re

    from zoo.paths import PACKAGE

    decorated = sum(len(re.findall(r"^@register\(", path.read_text(), re.MULTILINE)) for path in PACKAGE.rglob("*.py"))
    assert decorated == sum(len(list(registry(kind))) for kind in KINDS)
