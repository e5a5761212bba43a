"""Docs say what is so: generated blocks are fresh, README's Python runs, links lead somewhere."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_generated_blocks_are_fresh(capsys):
    module = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    assert module["main"](check=True) == 0, capsys.readouterr().out


def test_readmes_parts_alone_run(capsys):
    block = re.search(r"## Parts alone\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None and block.group(1).count("\n") <= 12
    exec(block.group(1), {})
    assert "573696" in capsys.readouterr().out


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_local_links_and_pictures_are_there(page):
    if "api" in page.parts:
        return
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http") and "/api/" not in target and not target.startswith("api/"):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_fine_tuning_tutorials_recipe_is_valid(tmp_path, striped_folder):
    from zoo.config.building import check_recipe
    from zoo.config.recipe import read_recipe

    text = (ROOT / "docs" / "tutorials" / "fine_tune.md").read_text()
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL).group(1))
    check_recipe(read_recipe(recipe))


def test_no_file_is_over_400_lines():
    long = [path for path in (ROOT / "zoo").rglob("*.py") if len(path.read_text().splitlines()) >= 400]
    assert not long
