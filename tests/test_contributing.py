"""A contributor's component, made as CONTRIBUTING.md says: in a package of its own, and in the tree."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from tests.conftest import TINY_RECIPE
from zoo.paths import PACKAGE, checkpoints_folder, recipes_folder

GUIDE = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The guide's code block in a language."""
    (text,) = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", GUIDE, flags=re.DOTALL | re.MULTILINE)
    return textwrap.dedent(text[1])


def in_a_package(folder: Path) -> Path:
    """Write an installed package with the component and its entry point; return what goes on the path."""
    points = tomllib.loads(block("toml"))["project"]["entry-points"]
    module = next(iter(points["zoo.components"].values())).partition(":")[0]
    file = folder / Path(*module.split(".")).with_suffix(".py")
    file.parent.mkdir(parents=True)
    (file.parent / "__init__.py").touch()
    file.write_text(block("python"))
    info = folder / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return Path(f"{folder}{os.pathsep}{PACKAGE.parent}")


def in_the_tree(folder: Path) -> Path:
    """Copy the source tree and add the component's file to its kind's folder."""
    shutil.copytree(PACKAGE, folder / "zoo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(recipes_folder(), folder / "recipes")
    (folder / "zoo" / "adapters" / "vector_scaling.py").write_text(block("python"))
    return folder


COMMANDS = """
import shlex, sys
import zoo
from typer.testing import CliRunner
from zoo.cli.app import app

print(zoo.__file__)
for line in sys.stdin.read().splitlines():
    done = CliRunner().invoke(app, shlex.split(line), catch_exceptions=False)
    print(done.output)
    if done.exit_code:
        sys.exit(f"{line}: {done.exit_code}")
"""


@pytest.mark.parametrize("install", [in_a_package, in_the_tree])
def test_a_contributed_component_is_listed_checked_planned_trained_and_published(tmp_path, install, striped_folder):
    cards = tmp_path / "cards"
    cards.mkdir()
    for name in ("clip-minilm-chest-drr", "unet-chest-drr"):
        (cards / name).symlink_to(checkpoints_folder().resolve() / name)
    (tmp_path / "guide.yaml").write_text(block("yaml"))
    (tmp_path / "below.yaml").write_text(TINY_RECIPE.format(folder=striped_folder))
    clip = "{name: small_clip, image_size: 32, patch_size: 8, width: 64, layers: 2, text_width: 32, text_layers: 2}"
    method = f"{{name: clip_adaptation, clip: {clip}, adapter: {{name: vector_scaling, bias: false}}}}"
    (tmp_path / "tiny.yaml").write_text(f"base: below\nmethod: {method}\n")
    lines = [
        "list components",
        "show vector_scaling",
        "check guide.yaml",
        "plan guide.yaml data.batch_size=1",
        "train tiny.yaml --out run",
        "publish run --name tiny-scaling",
        f"verify tiny-scaling --set data.folder={striped_folder}",
    ]
    path = install(tmp_path / "source")
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input="\n".join(lines),
        env={**os.environ, "PYTHONPATH": str(path), "ZOO_CHECKPOINTS": str(cards), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (str(tmp_path) in done.stdout.splitlines()[0]) == (install is in_the_tree)
    for expected in ("vector_scaling", "arXiv 1706.04599", "guide.yaml: valid", "GFLOPs", "next: zoo eval run", "yes"):
        assert expected in done.stdout
    assert "vector_scaling" in (cards / "tiny-scaling" / "recipe.yaml").read_text()
