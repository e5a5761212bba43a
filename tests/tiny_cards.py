"""Cards of tiny models: published once a session, and changed by tests that damage them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import TINY_RECIPE
from zoo.cards.prose import write_prose
from zoo.cards.schema import CardRecord
from zoo.cards.store import read_card, read_front_matter
from zoo.config.recipe import read_recipe
from zoo.engine.publishing import publish
from zoo.engine.training import train

BASE_RECIPE = """
data: {name: chest_drr, size: 64, image_size: 32, batch_size: 16, findings: [cardiomegaly]}
method:
  name: clip_pretraining
  clip: {name: small_clip, image_size: 32, patch_size: 8, width: 64, layers: 3, text_width: 32, text_layers: 3, embedding: 32,
    weights_seed: 7}
optimizer: {name: adamw}
trainer: {max_epochs: 1, enable_progress_bar: false, accelerator: cpu}
"""


def publish_tiny_cards(root: Path, images: Path) -> Path:
    """A folder with the cards "tiny-base" (a CLIP) and "tiny-nearl" (trained on it); the runs "base" and "nearl" beside it."""
    cards = root / "checkpoints"
    (root / "base.yaml").write_text(BASE_RECIPE)
    (root / "nearl.yaml").write_text(TINY_RECIPE.format(folder=images) + "init_from: tiny-base\n")
    publish(train(read_recipe(root / "base.yaml"), root / "base"), "tiny-base", half=True, folder=cards)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CHECKPOINTS", str(cards))
        publish(train(read_recipe(root / "nearl.yaml"), root / "nearl"), "tiny-nearl", folder=cards)
    return cards


def publish_tiny_classifier(root: Path, images: Path) -> Path:
    """The folder of the card "tiny": NEARL at its smallest, after an epoch on a folder of images."""
    (root / "tiny.yaml").write_text(TINY_RECIPE.format(folder=images))
    run = train(read_recipe(root / "tiny.yaml", ["trainer.max_epochs=1"]), root / "run")
    return publish(run, "tiny", folder=root / "cards")


def at(images: Path) -> list[str]:
    """Settings for a tiny classifier's card, which does not name the images that it was trained on."""
    return [f"data.folder={images}"]


def write_film(file: Path, value: int = 90) -> Path:
    """A PNG of one grey value, its folders made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((32, 32), value, np.uint8)).save(file)
    return file


def rewrite_record(card: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the record of a card and write its README from it."""
    record = read_card(card).record.model_dump(mode="json")
    change(record)
    write_prose(CardRecord.model_validate(record), card)


def change_record(card: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the front matter of a card in place."""
    text = (card / "README.md").read_text()
    front = read_front_matter(card / "README.md")
    change(front)
    prose = text.split("---\n", maxsplit=2)[2]
    (card / "README.md").write_text(f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n{prose}")
