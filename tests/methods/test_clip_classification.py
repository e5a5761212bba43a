"""Few-shot classification: losses, metrics, predictions, and where the prompt template comes from."""

from itertools import product

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image
from torch.nn import functional

from tests.tiny_models import openclip_vitb16
from zoo.adapters.linear_probe import LinearProbe
from zoo.adapters.tip_adapter import TipAdapter
from zoo.adapters.zero_shot import ZeroShot
from zoo.config.building import resolve_recipe
from zoo.config.recipe import read_recipe
from zoo.data.base import LoaderSpec
from zoo.data.chest_drr.datasets.findings import ChestDrrFindings
from zoo.data.classification.image_table import ImageFolder
from zoo.data.io.images import read_image
from zoo.encoders.clip import OpenClip
from zoo.methods.clip_classification import TEMPLATE, ClipClassification
from zoo.methods.nearl_clip import NearlClip

NAMES = ["dots", "stripes", "blank"]
IMAGES = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_loss_is_cross_entropy_and_outputs_are_probabilities(tiny_clip):
    method = ClipClassification(tiny_clip, ZeroShot, NAMES).eval()
    batch = {"image": IMAGES, "label": torch.tensor([0, 2, 1])}
    logits = tiny_clip.logits(tiny_clip.encode_image(IMAGES), tiny_clip.encode_text(method.adapter.classes.prompts()))
    torch.testing.assert_close(method.losses(batch)["loss"], functional.cross_entropy(logits, batch["label"]))
    outputs = method.evaluation_step(batch)
    torch.testing.assert_close(outputs["probabilities"], logits.softmax(dim=-1))
    assert torch.equal(outputs["labels"], batch["label"])


def test_metrics_of_known_predictions(tiny_clip):
    metrics = ClipClassification(tiny_clip, ZeroShot, NAMES).metrics()
    labels = torch.tensor([0, 0, 1, 2])
    right = functional.one_hot(labels, 3).float()
    assert {name: metric({"probabilities": right, "labels": labels}) for name, metric in metrics.items()} == {
        "accuracy": 1.0,
        "macro_f1": 1.0,
        "auroc": 1.0,
    }
    wrong = functional.one_hot(torch.tensor([0, 0, 0, 2]), 3).float()  # the image of class 1 is called 0
    outputs = {"probabilities": wrong, "labels": labels}
    assert metrics["accuracy"](outputs) == 0.75
    assert metrics["macro_f1"](outputs) == pytest.approx((0.8 + 0 + 1) / 3)


def test_images_of_any_size_are_classified(tiny_clip):
    method = ClipClassification(tiny_clip, ZeroShot, NAMES)
    predictions = method.predict_images([torch.rand(1, 40, 30), torch.rand(3, 32, 32)])
    for prediction in predictions:
        assert list(prediction.probabilities) == NAMES and prediction.attention is None
        assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_the_template_is_the_recipes_or_the_datas_or_a_neutral_one(tiny_recipe):
    def template(metadata: dict[str, object], *settings: str, overwrite: bool = False) -> str | None:
        resolved = resolve_recipe(read_recipe(tiny_recipe, settings)).with_metadata(metadata, overwrite=overwrite)
        return resolved.method.arguments.get("template")

    of_data = ChestDrrFindings().metadata()
    assert of_data["template"] == "a chest radiograph showing {}."
    assert template(of_data) == of_data["template"]
    assert template(of_data, "method.template=a film with {}") == "a film with {}"
    assert template(of_data, "method.template=a film with {}", overwrite=True) == "a film with {}", (
        "what it was trained with"
    )
    assert template({"class_names": NAMES}) is None and "radiograph" not in TEMPLATE


def test_every_class_of_the_rendered_films_has_descriptions():
    metadata = ChestDrrFindings().metadata()
    assert list(metadata["class_texts"]) == metadata["class_names"]
    assert all(len(set(texts)) == 6 for texts in metadata["class_texts"].values())
    assert list(ChestDrrFindings(classes="novel").metadata()["class_texts"]) == metadata["class_names"][5:]


def test_class_names_are_replaced_for_other_data(tiny_recipe):
    resolved = resolve_recipe(read_recipe(tiny_recipe)).with_metadata({"class_names": NAMES})
    other = resolved.with_metadata({"class_names": NAMES[:2]}, overwrite=True)
    assert other.method.arguments["class_names"] == NAMES[:2]


def test_an_adapter_that_processes_the_shots_needs_data_and_unsharded_weights(tiny_clip, striped_folder):
    method = ClipClassification(tiny_clip, TipAdapter, NAMES)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    loader = ImageFolder(str(striped_folder), image_size=32, loader=LoaderSpec(batch_size=4)).train_dataloader()
    with pytest.raises(ValueError, match="pass a data module"):
        Trainer(max_epochs=1, **quiet).fit(method, loader)
    with pytest.raises(ValueError, match="use ddp"):
        method.sharded_modules()
    assert ClipClassification(tiny_clip, LinearProbe, NAMES).sharded_modules() == [tiny_clip]


def test_training_evaluation_and_prediction_prepare_a_file_alike(tmp_path):
    """With a CLIP that crops, on films that are no squares."""
    clip = OpenClip(f"local-dir:{openclip_vitb16(tmp_path / 'clip')}")
    rng = np.random.default_rng(0)
    for split, name in product(("train", "val", "test"), NAMES):
        (tmp_path / "films" / split / name).mkdir(parents=True)
        pixels = rng.integers(0, 256, (90, 150), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "films" / split / name / "0.png")
    data = ImageFolder(str(tmp_path / "films"), loader=LoaderSpec(batch_size=2))
    method = ClipClassification(clip, LinearProbe, NAMES)
    method.optimizer_recipe = {"name": "sgd", "lr": 0.1}
    seen = []
    method.adapter.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[1]))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=1, limit_val_batches=0, **quiet)
    trainer.fit(method, data)
    films = [read_image(file) for file in sorted((tmp_path / "films" / "train").rglob("*.png"))]
    prepared = clip.stack(films)
    assert clip.transform.resize_mode == "shortest" and len(seen) == 3
    for image in seen:
        assert min(float((image - film).abs().max()) for film in prepared) < 1e-6
    trainer.test(method, data, verbose=False)
    tested = [read_image(tmp_path / "films" / "test" / name / "0.png") for name in data.class_names]
    predictions = [list(method.predict_image(film).probabilities.values()) for film in tested]
    torch.testing.assert_close(method.test_outputs["probabilities"], torch.tensor(predictions), atol=1e-5, rtol=1e-4)
    exportable = method.exportable()
    torch.testing.assert_close(exportable.module(clip.stack(tested)), torch.tensor(predictions), atol=1e-5, rtol=1e-4)
    assert exportable.preprocessing.startswith("the shorter side resized, the centre cropped (bicubic")


def test_attention_is_over_the_part_of_the_film_that_the_clip_has_seen(tmp_path):
    clip = OpenClip(f"local-dir:{openclip_vitb16(tmp_path)}")
    (prediction,) = NearlClip(clip, NAMES).eval().predict_images([torch.rand(1, 90, 150)])
    assert prediction.attention.shape == (4, 4) and prediction.attention_box == pytest.approx((30, 0, 120, 90), abs=1)
