"""Recipes with the names of earlier versions."""

import re
import shutil
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zoo.cards.store import read_card
from zoo.cli.app import app
from zoo.config import deprecations
from zoo.config.building import check_recipe, resolve
from zoo.config.components import signature_of
from zoo.config.deprecations import RecipeDeprecationWarning, RenamedComponent, RenamedKey, Upgrade
from zoo.config.recipe import RecipeError, list_recipes, read_recipe
from zoo.paths import checkpoints_folder
from zoo.registry import registry

MAP = [*deprecations.RENAMED_KEYS]
METHOD = "method: {name: nearl_clip, clip: {name: open_clip, model: ViT-B-16}}\noptimizer: {name: adamw}\n"
RECIPE = "data: {name: chest_drr_findings, workers: 2}\n" + METHOD


@pytest.fixture
def renamed(monkeypatch):
    """Entries beside those of the map: a component, a key of one component, a slot, and the kind-wide key."""
    monkeypatch.setattr(
        deprecations,
        "RENAMED_COMPONENTS",
        [RenamedComponent("vision_language_encoder", "openclip", "open_clip", "9.0")],
    )
    keys = [
        RenamedKey("vision_language_encoder", "arch", "model", "9.1", component="open_clip"),
        RenamedKey("method", "tower", "clip", "9.2"),
    ]
    monkeypatch.setattr(deprecations, "RENAMED_KEYS", [*MAP, *keys])


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def components_of(entry: RenamedKey) -> list[str]:
    """The zoo's components that an entry is about."""
    names = [entry.component] if entry.component else list(registry(entry.kind))
    return [name for name in names if entry.new in signature_of(registry(entry.kind).resolve(name))[0]]


@pytest.mark.parametrize("entry", MAP, ids=lambda entry: f"{entry.kind}-{entry.component}-{entry.old}")
def test_every_renamed_key_leads_to_a_current_one(entry):
    names = components_of(entry)
    assert names, f"no {entry.kind} takes {entry.new}"
    assert re.fullmatch(r"\d+\.\d+\.\d+", entry.since)
    assert not any((other.kind, other.old) == (entry.kind, entry.new) for other in MAP), (
        "renamed twice; merge the entries"
    )
    for name in names:
        assert entry.old not in signature_of(registry(entry.kind).resolve(name))[0]
        upgrade = Upgrade("mine.yaml")
        assert upgrade.component(entry.kind, {"name": name, entry.old: 3}, "key") == {"name": name, entry.new: 3}
        (note,) = upgrade.notes
        assert note.startswith(f"mine.yaml: key.{entry.old}: ") and f"'{entry.new}' in version {entry.since}" in note


@pytest.mark.parametrize("entry", deprecations.RENAMED_COMPONENTS, ids=lambda entry: f"{entry.kind}-{entry.old}")
def test_every_renamed_component_leads_to_a_current_one(entry):
    assert entry.new in registry(entry.kind) and entry.old not in registry(entry.kind)
    assert re.fullmatch(r"\d+\.\d+\.\d+", entry.since)
    assert Upgrade("mine.yaml").component(entry.kind, {"name": entry.old}, "key") == {"name": entry.new}


def test_a_file_with_an_old_key_is_read_with_one_warning(tmp_path):
    path = write(tmp_path, RECIPE)
    with pytest.warns(RecipeDeprecationWarning) as caught:
        recipe = read_recipe(path)
    assert recipe["data"] == {"name": "chest_drr_findings", "num_workers": 2}
    assert len(caught) == 1 and caught[0].filename == __file__
    for part in (str(path), "data.workers", "'num_workers'", "version 0.2.0"):
        assert part in str(caught[0].message)
    check_recipe(recipe)


def test_old_keys_in_a_base_and_an_override_have_their_places_in_one_warning(tmp_path):
    base = write(tmp_path, RECIPE, "base.yaml")
    child = write(tmp_path, "base: base\ndata: {shots: 4}\n", "child.yaml")
    with pytest.warns(RecipeDeprecationWarning) as caught:
        recipe = read_recipe(child, ["data.workers=5"])
    assert recipe["data"] == {"name": "chest_drr_findings", "shots": 4, "num_workers": 5}
    (message,) = [str(warning.message) for warning in caught]
    assert f"{base}: data.workers" in message and "command line: data.workers" in message


def test_a_new_key_changes_an_old_one_of_the_base(tmp_path):
    write(tmp_path, RECIPE, "base.yaml")
    with pytest.warns(RecipeDeprecationWarning):
        recipe = read_recipe(write(tmp_path, "base: base\ndata: {num_workers: 7}\n"))
    assert recipe["data"]["num_workers"] == 7


@pytest.mark.parametrize("data", ["workers: 1, num_workers: 2", "num_workers: 2, workers: 1"])
def test_old_and_new_key_together_are_an_error(tmp_path, data):
    path = write(tmp_path, f"data: {{name: chest_drr_findings, {data}}}\n" + METHOD)
    with pytest.raises(RecipeError, match="data.workers: is an old name of 'num_workers', which is given too"):
        read_recipe(path)
    with pytest.raises(RecipeError, match="command line: data.workers"):
        read_recipe(write(tmp_path, METHOD), ["data.name=chest_drr_findings", "data.workers=1", "data.num_workers=2"])


def test_names_in_slots_are_replaced_too(tmp_path, renamed):
    text = "data: {name: chest_drr_findings}\nmethod: {name: nearl_clip, tower: {name: openclip, arch: ViT-B-16}}\noptimizer: {name: adamw}\n"
    with pytest.warns(RecipeDeprecationWarning) as caught:
        recipe = read_recipe(write(tmp_path, text), ["method.tower.arch=ViT-L-14"])
    assert recipe["method"] == {"name": "nearl_clip", "clip": {"name": "open_clip", "model": "ViT-L-14"}}
    message = str(caught[0].message)
    assert "'openclip' was renamed to 'open_clip' in version 9.0" in message and "method.clip.arch" in message
    check_recipe(recipe)


def test_a_component_that_still_takes_the_key_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(deprecations, "RENAMED_KEYS", [RenamedKey("dataset", "shots", "batch_size", "9.0")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe = read_recipe(write(tmp_path, "data: {name: chest_drr_findings, shots: 4}\n" + METHOD))
    assert recipe["data"]["shots"] == 4


@pytest.mark.parametrize("reference", ["${data.workers}", "${.workers}"])
def test_interpolations_of_old_keys_are_replaced(tmp_path, reference):
    text = f"data: {{name: chest_drr_findings, num_workers: 3, batch_size: '{reference}'}}\n" + METHOD
    with pytest.warns(RecipeDeprecationWarning, match=r"data.batch_size: 'data.workers' was renamed"):
        assert read_recipe(write(tmp_path, text))["data"]["batch_size"] == 3


def test_an_interpolation_reaches_through_renamed_slots(tmp_path, renamed):
    text = "data: {name: chest_drr_findings, style: '${method.tower.arch}'}\n" + METHOD
    with pytest.warns(RecipeDeprecationWarning, match=r"'method.tower.arch' was renamed to 'method.clip.model'"):
        assert read_recipe(write(tmp_path, text))["data"]["style"] == "ViT-B-16"


def test_a_problem_is_put_down_to_the_file_with_the_old_key(tmp_path):
    path = write(tmp_path, RECIPE.replace("workers: 2", "workers: many"))
    with pytest.warns(RecipeDeprecationWarning), pytest.raises(RecipeError) as caught:
        check_recipe(read_recipe(path))
    assert [(problem.file, problem.key) for problem in caught.value.problems] == [(str(path), "data.num_workers")]


def test_malformed_sections_are_left_to_the_validation(tmp_path):
    for data in ("[workers]", "{workers: 1}", "{name: [1], workers: 1}", "{name: no_such_dataset, workers: 1}"):
        with pytest.raises(RecipeError, match="mine.yaml: data"):
            check_recipe(read_recipe(write(tmp_path, f"data: {data}\n" + METHOD)))


def test_the_record_of_a_card_is_read_silently_and_its_overrides_are_not(tmp_path):
    shutil.copytree(checkpoints_folder() / "nearl-clip-chest-drr-16shot", tmp_path / "card")
    path = tmp_path / "card" / "recipe.yaml"
    path.write_text(re.sub(r"^data:\n", "data:\n  workers: 1\n", path.read_text(), flags=re.MULTILINE))
    card = read_card(tmp_path / "card")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert card.recipe()["data"]["num_workers"] == 1
    with pytest.warns(RecipeDeprecationWarning, match="^command line: data.workers") as caught:
        assert card.recipe(["data.workers=2"])["data"]["num_workers"] == 2
    assert str(path) not in str(caught[0].message)


def test_a_component_alone_is_read_with_old_keys():
    with pytest.warns(RecipeDeprecationWarning, match="command line: data.workers"):
        component = resolve("dataset", {"name": "chest_drr_findings", "workers": 2}, "data", "command line")
    assert component.arguments == {"num_workers": 2}
    with pytest.raises(RecipeError, match="given too"):
        resolve("dataset", {"name": "chest_drr_findings", "workers": 2, "num_workers": 2})


def test_no_published_recipe_has_old_names():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RecipeDeprecationWarning)
        assert [read_recipe(name) for name in list_recipes()]


def test_the_command_line_prints_the_warning_once_and_goes_on(tmp_path):
    path = write(tmp_path, RECIPE)
    result = CliRunner().invoke(app, ["check", str(path), str(path)])
    assert result.exit_code == 0, result.output
    assert result.stderr.count("data.workers: 'workers' was renamed to 'num_workers' in version 0.2.0") == 1
    assert result.stderr.startswith("warning: ") and "Traceback" not in result.output
