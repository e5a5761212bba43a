"""The wheel: small, without weights, and usable once weights are at hand."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout; built in an isolated environment where hatchling is not installed."""
    folder = tmp_path_factory.mktemp("wheel")
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *isolation, "--wheel-dir", str(folder)]
    finished = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the unpacked wheel."""
    folder = tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run_python(installed: Path, code: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code that imports the unpacked wheel, in a folder that holds no checkout."""
    unset = ("ZOO_CHECKPOINTS", "ZOO_HUB_OWNER")
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    variables = {**inherited, "PYTHONPATH": str(installed), "ZOO_CACHE": str(cache), **environment}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cache, env=variables, capture_output=True, text=True, timeout=300
    )


def test_the_wheel_is_small_and_holds_records_and_recipes_but_no_weights(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.stat().st_size < 1_000_000
    examples = [name for name in names if name.startswith("zoo/data/chest_drr/examples/")]
    assert len(examples) == 3, "films that the app offers"
    assert not [name for name in names if name.endswith((".safetensors", ".png")) and name not in examples]
    cards = {path.parent.name for path in (ROOT / "checkpoints").glob("*/README.md")}
    recipes = {str(path.relative_to(ROOT)) for path in (ROOT / "recipes").rglob("*.yaml")}
    assert cards and {f"zoo/checkpoints/{card}/{file}" for card in cards for file in ("README.md", "recipe.yaml")} <= {
        *names
    }
    assert {f"zoo/{recipe}" for recipe in recipes} == {name for name in names if name.startswith("zoo/recipes/")}
    wording = {str(path.relative_to(ROOT)) for path in (ROOT / "zoo").rglob("*.yaml")}
    assert wording and {"zoo/py.typed", "zoo/__init__.pyi", "zoo/cards/card.md.jinja", *wording} <= {*names}


def test_an_installed_wheel_lists_cards_and_recipes(installed, tmp_path):
    code = "import zoo; print(zoo.__file__); print(*zoo.list_models()); zoo.check_recipe(zoo.read_recipe('coop/chest_drr_16shot'))"
    finished = run_python(installed, code, tmp_path)
    assert finished.returncode == 0, finished.stderr
    place, names = finished.stdout.splitlines()
    assert Path(place).parent.parent == installed
    assert set(names.split()) == {path.parent.name for path in (ROOT / "checkpoints").glob("*/README.md")}


LOAD = """
import zoo
try:
    zoo.load("vq-tokenizer-chest-drr")
    print("loaded")
except zoo.ZooError as error:
    print(f"{type(error).__name__}: {error}")
"""


def test_loading_without_weights_says_how_to_get_them(installed, tmp_path):
    finished = run_python(installed, LOAD, tmp_path)
    assert finished.stdout.startswith(
        "CardError: card 'vq-tokenizer-chest-drr' lacks its file model.safetensors (4.3 MB)"
    )
    assert "zoo pull OWNER/vq-tokenizer-chest-drr" in finished.stdout and "ZOO_CHECKPOINTS" in finished.stdout


def test_weights_are_found_in_the_folder_that_is_named(installed, tmp_path):
    finished = run_python(installed, LOAD, tmp_path, ZOO_CHECKPOINTS=str(ROOT / "checkpoints"))
    assert finished.stdout.strip() == "loaded", finished.stdout + finished.stderr


def test_weights_are_found_in_the_cache_and_new_cards_are_written_into_the_users_folder(installed, tmp_path):
    code = f"""
from pathlib import Path
from zoo.cards.hub import pull
from zoo.paths import publishing_folder, pulled_cards_folder
print(pull({str(ROOT / "checkpoints" / "vq-tokenizer-chest-drr")!r}).parent == pulled_cards_folder())
print(publishing_folder().resolve().parent == Path.cwd())
{LOAD}"""
    finished = run_python(installed, code, tmp_path)
    assert finished.stdout.split() == ["True", "True", "loaded"], finished.stdout + finished.stderr
    assert (tmp_path / "cards" / "vq-tokenizer-chest-drr" / "model.safetensors").is_file()
