"""Exports give what the method gives: graphs of torch.export and ONNX, and LoRA merged into its base."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.conftest import CLASSES, TINY_RECIPE
from tests.tiny_cards import publish_tiny_classifier
from zoo.adapters.lora import LoRA
from zoo.cli.app import app
from zoo.config.recipe import read_recipe
from zoo.encoders.clip import SmallClip
from zoo.engine.exporting import export
from zoo.engine.loading import load
from zoo.engine.publishing import publish
from zoo.engine.training import train
from zoo.errors import OutputExistsError, UnsupportedError
from zoo.methods.clip_classification import ClipClassification
from zoo.methods.grounding_baselines import FindingUnet


@pytest.fixture(scope="module")
def card(tmp_path_factory, striped_folder):
    return publish_tiny_classifier(tmp_path_factory.mktemp("card"), striped_folder)


@pytest.fixture(scope="module")
def lora_card(tmp_path_factory, striped_folder):
    root = tmp_path_factory.mktemp("lora")
    (root / "tiny.yaml").write_text(TINY_RECIPE.format(folder=striped_folder))
    method = "{name: clip_adaptation, adapter: {name: lora, rank: 2}, clip: {name: small_clip, image_size: 32, patch_size: 8, "
    method += "width: 64, layers: 3, text_width: 32, text_layers: 3, embedding: 32}}"
    recipe = read_recipe(root / "tiny.yaml", ["method=null", f"method={method}", "trainer.max_epochs=1"])
    return publish(train(recipe, root / "run"), "lora", folder=root / "cards")


@torch.no_grad()
@pytest.mark.parametrize("kind", ["torch_export", "onnx"])
def test_a_classifiers_graph_gives_its_probabilities_for_any_batch(card, tmp_path, kind):
    file = export(card, tmp_path / "model", kind)
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["names"] == load(card).class_names and sorted(p.name for p in tmp_path.iterdir()) == [
        "model",
        "model.json",
    ]
    method = load(card)
    for batch in (1, 3):
        images = torch.rand(batch, 3, 32, 32)
        if kind == "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(str(file))
            (ours,) = session.run(["probabilities"], {"images": images.numpy()})
        else:
            ours = torch.export.load(str(file)).module()(images).numpy()
        np.testing.assert_allclose(ours, method(images).softmax(dim=-1).numpy(), atol=1e-5)


@torch.no_grad()
def test_a_unets_graph_gives_its_masks():
    unet = FindingUnet(["rib fracture"], ["sternum"], image_size=64, channels=[16, 16, 8, 8, 8]).eval()
    exportable = unet.exportable()
    images = torch.rand(2, *exportable.input_shape)
    graph = torch.export.export(exportable.module, (images,)).module()
    expected = unet.decode_masks(list(images), torch.tensor([0, 1]), torch.tensor([0, 0])).sigmoid()
    torch.testing.assert_close(graph(images)[0], expected)
    assert exportable.names == ("rib fracture", "sternum")


@torch.no_grad()
def test_clip_lora_is_merged_into_weights_that_a_plain_clip_loads(lora_card, tmp_path):
    from safetensors.torch import load_file

    folder = export(lora_card, tmp_path / "merged", "merged")
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # others may read the weights too
    method = load(lora_card)
    assert isinstance(method.adapter, LoRA)
    plain = SmallClip(
        image_size=32, patch_size=8, width=64, layers=3, text_width=32, text_layers=3, embedding=32
    ).eval()
    plain.model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    prompts = json.loads((folder / "classes.json").read_text())
    assert sorted(prompts) == sorted(CLASSES)
    images = torch.rand(2, 3, 32, 32)
    logits = plain.logits(plain.encode_image(images), plain.encode_text(list(prompts.values())))
    torch.testing.assert_close(logits, method(images), atol=1e-4, rtol=1e-4)


def test_what_has_no_such_export_says_so(card, tmp_path):
    for kind, message in (("merged", "NearlAdapter is no LoRA"), ("onnx", "exists")):
        (tmp_path / "there").mkdir(exist_ok=True)
        out = tmp_path / ("there" if kind == "onnx" else "new")
        with pytest.raises((UnsupportedError, OutputExistsError), match=message):
            export(card, out, kind)
        assert [path.name for path in tmp_path.iterdir()] == ["there"], "nothing is left behind"
    assert isinstance(load(card), ClipClassification)


def test_the_command_writes_beside_and_says_where(card, tmp_path):
    done = CliRunner().invoke(app, ["export", str(card), "--out", str(tmp_path / "tiny.pt2")])
    assert done.exit_code == 0 and "tiny.pt2" in done.stdout and (tmp_path / "tiny.pt2.json").is_file()
