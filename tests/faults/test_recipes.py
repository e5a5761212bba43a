"""A recipe from a stranger reads no environment, no file that is no recipe, and takes a bounded amount of memory."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.arbitrary import bounded_memory, fuzz, value_or_error
from zoo.config.recipe import Recipe, RecipeError, read_recipe

SECRET = "hunter2"
DISGUISES = [
    "init_from: ${oc.env:ZOO_SECRET}",
    r'init_from: "${oc\u002Eenv:ZOO_SECRET}"',
    r'init_from: "${oc.env\u003AZOO_SECRET}"',
    'init_from: "$\\\n  {oc.env:ZOO_SECRET}"',
    'init_from: "${oc.env\\\n  :ZOO_SECRET}"',
    "init_from: ${oc.${seed}:ZOO_SECRET}\nseed: env",
    "init_from: '$${seed}{oc.env:ZOO_SECRET}'",
    "init_from: ${data.a}${data.b}\ndata: {a: '$', b: '{oc.env:ZOO_SECRET}'}",
    "init_from: ${ oc.env : ZOO_SECRET }",
    "init_from: ['x', {y: '${oc.env:ZOO_SECRET}'}]",
    "data: {'${oc.env:ZOO_SECRET}': 1}",
    r"init_from: '\${oc.env:ZOO_SECRET}'",
    "init_from: &a '${oc.env:ZOO_SECRET}'\ndata: {x: *a}",
    "init_from: ${oc.decode:'${oc.env:ZOO_SECRET}'}",
]


@pytest.fixture(autouse=True)
def _secret(monkeypatch):
    monkeypatch.setenv("ZOO_SECRET", SECRET)


def _write(folder, text, name="recipe.yaml"):
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize("text", DISGUISES)
def test_no_disguise_of_a_resolver_reads_the_environment(tmp_path, text):
    for record in (False, True):
        with pytest.raises(RecipeError) as caught:
            read_recipe(_write(tmp_path, text), record=record)
        assert SECRET not in str(caught.value)
    base = _write(tmp_path, text, "below.yaml")
    with pytest.raises(RecipeError):
        read_recipe(_write(tmp_path, f"base: {base.stem}"))


@pytest.mark.parametrize(
    "value", [r'"${oc\u002Eenv:ZOO_SECRET}"', "${oc.env:ZOO_SECRET}", "{x: '${oc.env:ZOO_SECRET}'}"]
)
def test_no_override_reads_the_environment(tmp_path, value):
    with pytest.raises(RecipeError, match="only"):
        read_recipe(_write(tmp_path, "seed: 1"), [f"init_from={value}"])


@given(
    pieces=st.lists(
        st.sampled_from(["$", "{", "}", "oc.env", ":", "ZOO_SECRET", "${seed}", "\\", "u002E", " ", "'"]), max_size=9
    )
)
@fuzz
def test_no_combination_of_pieces_does(tmp_path, pieces):
    text = yaml.safe_dump({"seed": "${oc", "init_from": "".join(pieces), "data": {"x": "".join(pieces[::-1])}})
    recipe = value_or_error(lambda: read_recipe(_write(tmp_path, text)))
    assert SECRET not in (json.dumps(recipe.content) if isinstance(recipe, Recipe) else str(recipe))


def _doubling(template: str, first: str) -> str:
    lines = [f"a0: {first}", *(f"a{n}: {template.replace('X', f'${{data.a{n - 1}}}')}" for n in range(1, 60))]
    return "data:\n" + "".join(f"  {line}\n" for line in lines)


@pytest.mark.parametrize(
    "text", [_doubling("'XX'", "x" * 50), _doubling("['X', 'X']", "[1]"), _doubling("{p: 'X', q: 'X'}", "{p: 1}")]
)
def test_what_references_expand_to_is_bounded(tmp_path, text):
    with bounded_memory(300), pytest.raises(RecipeError, match="expand to more than|YAML node expansion"):
        read_recipe(_write(tmp_path, text))


def test_aliases_and_deep_nesting_are_bounded(tmp_path):
    aliases = "data:\n  a0: &a0 [1, 1]\n" + "".join(f"  a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    for text in (aliases, "data: " + "[" * 5000, "data: " + "[" * 400 + "]" * 400):
        with bounded_memory(300), pytest.raises(RecipeError):
            read_recipe(_write(tmp_path, text))


@pytest.mark.parametrize(
    "content", ["password: hunter2", "root:x:0:0:hunter2", "key = hunter2: :\n  - [x", "a: !hunter2 b", "a: *hunter2"]
)
def test_a_base_is_beside_the_recipe_or_published_and_nothing_else_is_echoed(tmp_path, content):
    secret = _write(tmp_path, content, "secret.yaml")
    recipes = tmp_path / "recipes"
    for base in ("../secret", str(secret), "../secret.yaml"):
        with pytest.raises(RecipeError, match="outside of the recipe's folder") as caught:
            read_recipe(_write(recipes.parent, f"base: {base}", "recipes/recipe.yaml"))
        assert SECRET not in str(caught.value)
    (recipes / "link.yaml").symlink_to(secret)
    with pytest.raises(RecipeError, match="outside of the recipe's folder"):
        read_recipe(_write(recipes, "base: link"))
    with pytest.raises(RecipeError, match="is no recipe|not readable YAML") as caught:
        read_recipe(secret)
    assert SECRET not in str(caught.value)


def test_bases_beside_and_below_the_recipe_and_published_ones_are_read(tmp_path):
    _write(tmp_path, "seed: 5", "below.yaml")
    _write(tmp_path, "seed: 6", "folder/deep.yaml")
    assert read_recipe(_write(tmp_path, "base: below"))["seed"] == 5
    assert read_recipe(_write(tmp_path, f"base: {tmp_path / 'below.yaml'}"))["seed"] == 5
    assert read_recipe(_write(tmp_path, "base: folder/deep"))["seed"] == 6
    assert read_recipe(_write(tmp_path, "base: nearl_clip/chest_drr_16shot"))["method"]["name"] == "nearl_clip"
