"""from_pretrained and push_to_hub over cards, with huggingface_hub's real client against a hub on localhost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelHubMixin

from tests.hub_server import running_hub
from zoo.cards.store import CardError
from zoo.engine.loading import load
from zoo.errors import ArgumentError
from zoo.methods.clip_pretraining import ClipPretraining
from zoo.methods.nearl_clip import NearlClip

PUSH_AND_LOAD = """
import json, sys
import torch
from huggingface_hub.errors import HfHubHTTPError
import zoo
from zoo.methods.base import ZooModule

base = ZooModule.from_pretrained("tiny-base")
print(base.push_to_hub("me/tiny-base"))
zoo.NearlClip.from_pretrained("tiny-nearl").push_to_hub("me/tiny-nearl", token="hf_mine", commit_message="first")
image = torch.linspace(0, 1, 32 * 32).reshape(1, 32, 32)
for name in ("me/tiny-base", "me/tiny-nearl"):
    method = ZooModule.from_pretrained(name)
method = zoo.NearlClip.from_pretrained("me/tiny-nearl", revision="main")
print(json.dumps({"folder": str(method.card_folder), **method.predict_image(image).to_dict()}))
try:
    zoo.NearlClip.from_pretrained("me/gone")
except HfHubHTTPError as error:
    print(type(error).__name__)
"""
LOAD = """
import zoo
zoo.NearlClip.from_pretrained("me/tiny-nearl")
"""


def run(code: str, hub: str, tmp_path: Path, cards: Path) -> subprocess.CompletedProcess[str]:
    """Run code with a hub, its cache and the zoo's in folders of their own; the client reads the address as it is imported."""
    own = {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "ZOO_CHECKPOINTS": str(cards)}
    variables = {**os.environ, **own, "ZOO_CACHE": str(tmp_path / "cache"), "HF_TOKEN": "hf_default", "NO_PROXY": "*"}
    variables |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=240)


def test_a_card_goes_to_the_hub_and_back_and_is_checked(cards, tmp_path):
    with running_hub() as hub:
        done = run(PUSH_AND_LOAD, hub.address, tmp_path, cards)
        assert done.returncode == 0, done.stderr[-3000:]
        commit, prediction, missing = done.stdout.splitlines()
        assert commit.startswith(f"{hub.address}/me/tiny-base/commit/") and missing == "RepositoryNotFoundError"
        assert {"hf_default", "hf_mine"} <= hub.tokens
        files = hub.files["me/tiny-nearl"]
        assert set(files) == {path.name for path in (cards / "tiny-nearl").iterdir()}
        assert files["model.safetensors"] == (cards / "tiny-nearl" / "model.safetensors").read_bytes()
        image = torch.linspace(0, 1, 32 * 32).reshape(1, 32, 32)
        expected = load("tiny-nearl").predict_image(image).to_dict()
        found = json.loads(prediction)
        assert found.pop("folder") == str(tmp_path / "cache" / "cards" / "tiny-nearl")
        assert found["class"] == expected["class"]
        assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)

        weights = files["model.safetensors"]
        files["model.safetensors"] = weights[:-4] + bytes(4)
        done = run(LOAD, hub.address, tmp_path, cards)
        assert done.returncode == 1 and "is not the file that card 'tiny-nearl' was published with" in done.stderr
        kept = tmp_path / "cache" / "cards" / "tiny-nearl" / "model.safetensors"
        assert kept.read_bytes() == weights, "the good one stays"


def test_a_method_is_loaded_by_its_own_class(cards):
    method = NearlClip.from_pretrained("tiny-nearl")
    assert isinstance(method, ModelHubMixin) and not method.training
    assert NearlClip.from_pretrained(cards / "tiny-nearl", for_training=True).training
    with pytest.raises(CardError, match="tiny-nearl is a NearlClip, not a ClipPretraining"):
        ClipPretraining.from_pretrained("tiny-nearl")
    with pytest.raises(ArgumentError, match="takes no cache_dir"):
        NearlClip.from_pretrained("tiny-nearl", cache_dir="x")


def test_a_card_is_saved_whole_and_only_with_its_own_weights(cards, tmp_path):
    method = NearlClip.from_pretrained("tiny-nearl")
    method.save_pretrained(tmp_path / "copy" / "card")
    assert {path.name for path in (tmp_path / "copy" / "card").iterdir()} == {
        path.name for path in (cards / "tiny-nearl").iterdir()
    }
    with pytest.raises(CardError, match="exists; choose another folder"):
        method.save_pretrained(tmp_path / "copy" / "card")
    with torch.no_grad():
        next(parameter for parameter in method.parameters() if parameter.requires_grad).add_(1)
    with pytest.raises(CardError, match="weights are no longer those of card 'tiny-nearl'"):
        method.push_to_hub("me/changed")
    method.card_folder = None
    with pytest.raises(CardError, match="was not loaded from a card"):
        method.push_to_hub("me/none")
