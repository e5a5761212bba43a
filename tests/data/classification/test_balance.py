"""Unbalanced classes: weights by hand, draws as often of each, in order for several processes and after a break."""

import random
import shutil
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.data.annotations.public_forms import label_table
from tests.killing import train_and_kill
from tests.small_recipes import write_recipe
from zoo.cli.app import app
from zoo.config.building import build, check_recipe
from zoo.config.recipe import RecipeError, read_recipe
from zoo.data.base import ResumableSampler
from zoo.data.classification.balance import (
    ClassLoaderSpec,
    balanced_class_weights,
    is_balanced,
    positive_weights,
    rarest_labels,
    sample_weights,
)
from zoo.data.classification.image_table import ImageFolder
from zoo.engine import trainers
from zoo.engine.assembly import assemble
from zoo.engine.training import train
from zoo.errors import ArgumentError

NAN = float("nan")


@pytest.fixture
def unbalanced(striped_folder, tmp_path):
    """Twelve, two and four training images of a class."""
    folder = tmp_path / "unbalanced"
    shutil.copytree(striped_folder, folder)
    for name, kept in (("blank film", 2), ("dots", 4)):
        for file in sorted((folder / "train" / name).iterdir())[kept:]:
            file.unlink()
    return folder


@pytest.fixture
def recipe(unbalanced, tiny_recipe, striped_folder):
    tiny_recipe.write_text(tiny_recipe.read_text().replace(str(striped_folder), str(unbalanced)))
    return tiny_recipe


def test_weights_by_hand():
    assert torch.allclose(balanced_class_weights(torch.tensor([1, 2, 4])), torch.tensor([12.0, 6.0, 3.0]) / 7)
    assert float(balanced_class_weights(torch.tensor([5, 90, 5])).mean()) == pytest.approx(1)
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, NAN, 1.0], [0.0, 1.0, 1.0], [0.0, NAN, NAN]])
    assert positive_weights(targets).tolist() == [3.0, 1.0, 1.0], (
        "unknown targets do not count; no negatives, no weight"
    )
    assert sample_weights([0, 0, 0, 1]).tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert rarest_labels(torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, NAN], [1.0, 0.0]])) == [1, 0, -1, 0]


def loader(folder, sampling="balanced", **options):
    return ImageFolder(str(folder), image_size=32, loader=ClassLoaderSpec(batch_size=4, sampling=sampling, **options))


def test_each_class_is_drawn_as_often(unbalanced):
    data = loader(unbalanced)
    assert is_balanced(data.loader) and data.class_counts().tolist() == [2, 4, 12]
    batches = data.train_dataloader()
    counts: Counter[int] = Counter()
    for epoch in range(60):
        batches.sampler.set_epoch(epoch)
        labels = [int(data.split("train").items[index].label) for index in batches.sampler]
        assert len(labels) == 18, "an epoch is as long as before"
        counts.update(labels)
    assert all(0.28 < count / sum(counts.values()) < 0.39 for count in counts.values()) and len(counts) == 3
    once = [
        int(data.split("train").items[index].label)
        for index in loader(unbalanced, "shuffle").train_dataloader().sampler
    ]
    assert Counter(once) == {0: 2, 1: 4, 2: 12}


def test_two_processes_divide_the_draws_and_a_resumed_one_goes_on(unbalanced):
    dataset = loader(unbalanced).split("train")
    one, first, second = (
        ResumableSampler(dataset, world, rank, 3, 2, (0, 0)) for world, rank in ((1, 0), (2, 0), (2, 1))
    )
    assert list(one) == [index for pair in zip(first, second, strict=True) for index in pair]
    resumed = ResumableSampler(dataset, 1, 0, 3, 2, (0, 4))
    assert list(resumed) == list(one)[8:]
    one.set_epoch(1)
    assert list(one) != list(first)


def test_a_killed_run_resumes_to_the_same_weights(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(trainers, "CHECKPOINT_EVERY", 1)
    settings = ["data.sampling=balanced", "method.class_weights=balanced"]
    content = read_recipe(recipe, settings)
    whole = train(content, tmp_path / "whole")
    step = random.Random(1).randrange(1, 9)
    train_and_kill(step, content, tmp_path / "killed")
    train(content, tmp_path / "killed", resume=True)
    expected, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items()) and expected
    plain = load_file(train(read_recipe(recipe), tmp_path / "plain") / "model.safetensors")
    assert any(not torch.equal(value, plain[name]) for name, value in expected.items()) and whole


@pytest.mark.parametrize("adapter", ["lora", "kgcoop", "prograd"])
def test_the_loss_weighs_the_classes(recipe, adapter):
    content = read_recipe(recipe)
    method = {"name": "clip_adaptation", "clip": content["method"]["clip"], "adapter": {"name": adapter}}
    assembly = assemble(content.with_content(method=method | {"class_weights": "balanced"}))
    module, data = assembly.method.eval(), assembly.data
    batch = {"image": torch.rand(3, 1, 32, 32), "label": torch.tensor([0, 1, 2])}
    with torch.no_grad():
        plain = [module.losses({name: value[i : i + 1] for name, value in batch.items()})["loss"] for i in range(3)]
        module.adapter.class_weights = module.weights_by_class(data)
        assert module.adapter.class_weights.tolist() == pytest.approx([1.8, 0.9, 0.3])
        weighted = module.losses(batch)["loss"]
    shares = torch.tensor([0.6, 0.3, 0.1])
    assert float(weighted) == pytest.approx(float((shares * torch.stack(plain)).sum()), rel=1e-3)
    assert "adapter.class_weights" not in module.trained_state(), "a card has the same weights as before"


def test_the_presence_of_rare_labels_weighs_more(tmp_path):
    label_table(tmp_path / "labels")
    settings = ["method.class_weights=balanced", "data.sampling=balanced"]
    assembly = assemble(read_recipe(write_recipe(tmp_path, "clip_multi_label"), settings))
    method = assembly.method.eval()
    images = torch.rand(2, 3, 32, 32)
    method.adapter.class_weights = method.weights_by_class(assembly.data)
    assert method.adapter.class_weights.tolist() == [1.5, 2.0], "three absent of five known, four of six"
    with torch.no_grad():
        p = method(images).sigmoid()
        loss = method.losses({"image": images, "labels": torch.tensor([[1.0, NAN], [0.0, 1.0]])})["loss"]
    expected = -(1.5 * p[0, 0].log() + (1 - p[1, 0]).log() + 2 * p[1, 1].log()) / 3
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    dataset = assembly.data.split("train")
    groups = torch.tensor(rarest_labels(dataset.targets))
    shares = [float(dataset.sample_weights[groups == group].sum()) for group in groups.unique()]
    assert shares == pytest.approx([1 / len(shares)] * len(shares))


def test_check_shows_counts_and_weights(recipe):
    done = CliRunner().invoke(app, ["check", str(recipe), "data.sampling=balanced", "method.class_weights=balanced"])
    assert done.exit_code == 0, done.output
    rows = [line.replace("│", " ").split() for line in done.output.splitlines()]
    (blank,) = [row for row in rows if row[:2] == ["blank", "film"] and "33.3" in row]
    assert "rare classes count twice" in done.output
    assert blank[2:] == ["2", "33.3", "%", "1.8"]
    assert "share of the draws" not in CliRunner().invoke(app, ["check", str(recipe)]).output


def test_unknown_ways_and_methods_without_a_loss_are_refused(recipe, unbalanced):
    for setting in ("data.sampling=balance", "method.class_weights=inverse"):
        with pytest.raises(RecipeError, match=setting.split("=")[0]):
            check_recipe(read_recipe(recipe, [setting]))
    with pytest.raises(RecipeError, match="unknown argument for ChestDrr"):
        build("dataset", {"name": "chest_drr_medseg_qa", "sampling": "balanced"})
    content = read_recipe(recipe)
    method = {"name": "clip_adaptation", "clip": content["method"]["clip"], "adapter": {"name": "zero_shot"}}
    with pytest.raises(ArgumentError, match="ZeroShot trains nothing by one"):
        assemble(content.with_content(method=method | {"class_weights": "balanced"}))
