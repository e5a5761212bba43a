from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.config.building import check_recipe
from zoo.config.recipe import RecipeError, list_recipes, read_recipe


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_every_published_recipe_is_valid():
    names = list_recipes()
    assert len(names) >= 33
    for name in names:
        check_recipe(read_recipe(name))


def test_every_recipe_opens_with_the_command_that_runs_it():
    from zoo.paths import recipes_folder

    for name in list_recipes():
        head = (recipes_folder() / f"{name}.yaml").read_text().split("\n")[:3]
        assert head[0].startswith("# ") and any(
            f"zoo train {name}" in line or f"zoo plan {name}" in line for line in head
        )


def test_base_override_and_interpolation(tmp_path):
    write(
        tmp_path,
        "below.yaml",
        "seed: 1\ndata: {name: chest_drr_findings, shots: 4}\noptimizer: {name: sgd, momentum: 0.5}",
    )
    child = write(tmp_path, "child.yaml", "base: below\ndata: {batch_size: '${data.shots}'}\noptimizer: {name: adamw}")
    recipe = read_recipe(child, ["data.shots=8", "seed=3"])
    assert recipe["data"] == {"name": "chest_drr_findings", "shots": 8, "batch_size": 8}
    assert recipe["seed"] == 3
    assert recipe["optimizer"] == {"name": "adamw"}, "another name replaces the component with its old arguments"
    assert read_recipe(write(tmp_path, "again.yaml", recipe.to_yaml())).content == recipe.content


def test_five_mistakes_are_reported_at_once_with_file_and_key(tmp_path):
    path = write(
        tmp_path,
        "bad.yaml",
        "sed: 1\n"
        "data: {name: chest_drr_finding}\n"
        "method: {name: nearl_clip, clip: {name: open_clip, modell: ViT-B-16}, interaction: mutual}\n"
        "optimizer: {name: adamw, lr: fast}\n"
        "trainer: {max_epoch: 2}\n",
    )
    with pytest.raises(RecipeError) as caught:
        check_recipe(read_recipe(path))
    found = {problem.key: problem.message for problem in caught.value.problems}
    assert "did you mean seed" in found["sed"]
    assert "did you mean chest_drr_findings" in found["data.name"]
    assert "did you mean model" in found["method.clip.modell"]
    assert "'instance' or 'prototype'" in found["method.interaction"]
    assert "valid number" in found["optimizer.lr"]
    assert "did you mean max_epochs" in found["trainer.max_epoch"]
    assert "requires it" in found["method.clip.model"]
    assert all(problem.file == str(path) for problem in caught.value.problems)


def test_a_problem_names_the_file_that_set_the_key(tmp_path):
    below = write(
        tmp_path,
        "below.yaml",
        "data: {name: chest_drr_findings}\nmethod: {name: nearl_clip, clip: {name: small_clip, wdth: 3}}\noptimizer: {name: adamw}",
    )
    child = write(tmp_path, "child.yaml", "base: below\ntrainer: {max_epochs: 1}")
    with pytest.raises(RecipeError) as caught:
        check_recipe(read_recipe(child, ["optimizer.lrr=1"]))
    assert {problem.key: problem.file for problem in caught.value.problems} == {
        "method.clip.wdth": str(below),
        "optimizer.lrr": "command line",
    }


def test_a_component_of_the_wrong_class_is_refused(tmp_path):
    text = "data: {name: chest_drr_findings}\nmethod: {name: nearl_clip, clip: {name: small_clip}, useformer: {name: coop}}\noptimizer: {name: adamw}"
    with pytest.raises(RecipeError, match="is coop, which is not a USEformer"):
        check_recipe(read_recipe(write(tmp_path, "wrong.yaml", text)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: ${oc.env:HOME}", "is a resolver"),
        ("seed: ${nowhere.at.all}", "nowhere"),
        ("- a\n- list", "is a list"),
        ("seed: [unclosed", "not readable YAML"),
        ("base: itself", "itself.yaml: base: is circular: .*itself.yaml -> .*itself.yaml$"),
        ("base: [1]", r"itself.yaml: base: is \[1\]; expected the name"),
        (
            "base: nearl_clip/vitb61",
            "itself.yaml: base: no recipe is named 'nearl_clip/vitb61'; did you mean nearl_clip/vitb16",
        ),
        ("method: !!python/object/apply:os.system ['true']", "not readable YAML"),
    ],
)
def test_unreadable_recipes_say_why(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe(write(tmp_path, "itself.yaml", text))


def test_a_missing_recipe_has_the_nearest_names():
    with pytest.raises(RecipeError, match="did you mean nearl_clip/chest_drr_16shot"):
        read_recipe("nearl_clip/chest_drr_16shots")


def test_a_circle_of_bases_names_its_files_once(tmp_path):
    files = [write(tmp_path, f"{name}.yaml", f"base: {base}") for name, base in ("ab", "bc", "cb")]
    with pytest.raises(RecipeError) as caught:
        read_recipe(files[0])
    a, b, c = files
    assert str(caught.value) == f"{c}: base: is circular: {a} -> {b} -> {c} -> {b}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("shots:4", "command line: shots:4: expected key=value, as data.shots=4"),
        ("data.shots=${oc.env:HOME}", r"command line: data.shots: '\$\{oc.env' is a resolver or malformed; only"),
    ],
)
def test_malformed_overrides_are_refused(override, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe("nearl_clip/chest_drr_16shot", [override])


def test_a_text_is_one_override():
    assert read_recipe("nearl_clip/chest_drr_16shot", "data.shots=4")["data"]["shots"] == 4
    with pytest.raises(RecipeError) as caught:
        read_recipe("nearl_clip/chest_drr_16shot", "shots")
    assert len(caught.value.problems) == 1


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused_but_nothing_else(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        check_recipe(read_recipe(path))
    except RecipeError as error:
        assert error.problems
    else:
        pytest.fail("no random text is a whole recipe")
