"""Shared by all tests: a cache of their own (one for all xdist workers, which then render once), a tiny CLIP, a tiny data set of stripes and dots."""

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)

CLASSES = ("stripes", "dots", "blank film")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    cache = tmp_path_factory.getbasetemp().parent / "cache" if parallel else tmp_path_factory.mktemp("cache")
    os.environ["ZOO_CACHE"] = str(cache)


_ports = itertools.count(20_000 + 4_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")))


@pytest.fixture(autouse=True)
def _own_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Processes that train together meet at a port of their own, and no test inherits the ranks or the group of another."""
    monkeypatch.setenv("MASTER_PORT", str(next(_ports)))
    yield
    for name in ("MASTER_ADDR", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture
def tiny_clip():
    from zoo.encoders.clip import SmallClip

    torch.manual_seed(0)
    sizes = {"width": 64, "layers": 3, "text_width": 32, "text_layers": 3, "embedding": 32}
    return SmallClip(image_size=32, patch_size=8, **sizes).eval()


def draw(name: str, rng: np.random.Generator, size: int = 32) -> np.ndarray:
    """An 8-bit picture that even a tiny model can tell from those of the other classes."""
    image = rng.normal(60, 12, (size, size))
    if name == "stripes":
        image[:, ::4] += 150
    elif name == "dots":
        image[4:12, 4:12] += 150
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def striped_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``SPLIT/CLASS/PATIENT_n.png``: 12, 4 and 8 images a class."""
    root = tmp_path_factory.mktemp("striped")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4), ("test", 8)):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(draw(name, rng)).save(folder / f"{split}{index:02d}.png")
    return root


TINY_RECIPE = """
seed: 0
data: {{name: image_folder, folder: {folder}, image_size: 32, batch_size: 4}}
method:
  name: nearl_clip
  clip: {{name: small_clip, image_size: 32, patch_size: 8, width: 64, layers: 3, text_width: 32, text_layers: 3, embedding: 32}}
  useformer: {{name: useformer, width: 32, depth: 2, queries: 2, synergy: 32}}
  adapter: {{name: oca, rank: 4}}
optimizer: {{name: adamw, lr: 5.0e-3}}
scheduler: {{name: cosine, warmup_steps: 2}}
trainer: {{max_epochs: 2, enable_progress_bar: false, accelerator: cpu}}
"""


@pytest.fixture
def tiny_recipe(tmp_path: Path, striped_folder: Path) -> Path:
    """NEARL-CLIP at its smallest, on the striped folder."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_RECIPE.format(folder=striped_folder))
    return path


@pytest.fixture(scope="session")
def published_cards(tmp_path_factory: pytest.TempPathFactory, striped_folder: Path) -> Path:
    """The cards of :func:`tests.tiny_cards.publish_tiny_cards`."""
    from tests.tiny_cards import publish_tiny_cards

    return publish_tiny_cards(tmp_path_factory.mktemp("cards"), striped_folder)


@pytest.fixture
def cards(published_cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the published cards that a test may damage."""
    copy = tmp_path / "checkpoints"
    shutil.copytree(published_cards, copy)
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(copy))
    return copy
