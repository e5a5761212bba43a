"""The official recipes: the hyperparameters of the authors, and each on tiny stand-ins in the real format."""

import json
from typing import get_args

import pytest

from tests.tiny_models import biomedclip, biomedcoop_sets
from zoo.config.building import check_recipe
from zoo.config.recipe import list_recipes, read_recipe
from zoo.data.classification.biomedcoop import SetName
from zoo.engine.comparison import compare
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.training import train

OFFICIAL = [name for name in list_recipes() if name.split("/")[1].startswith("official")]
SETS = get_args(SetName)
QUICK = ["trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "data.shots=2"]


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """Settings that put a tiny BiomedCLIP and two sets of four classes in the place of the real ones."""
    folder = tmp_path_factory.mktemp("official")
    biomedclip(folder / "clip")
    root = biomedcoop_sets(folder / "data", "BTMRI", "Kvasir")
    names = ("stripes", "dots", "blank film", "bright film")
    texts = folder / "texts.json"
    texts.write_text(json.dumps({name: [f"{name} number {n}" for n in range(3)] for name in names}))
    return [*QUICK, f"method.clip.source=local-dir:{folder / 'clip'}", f"data.root={root}"], f"data.texts={texts}"


def settings_of(name, stand_ins):
    settings, texts = stand_ins
    return [*settings, *([texts] if name.startswith("biomedcoop") else [])]


def test_every_peer_has_an_official_recipe_that_fits_every_set():
    peers = "biomedcoop clip_adapter cocoop coop kgcoop linear_probe lora lp_plus_plus maple prograd taskres tip_adapter tip_adapter_f"
    assert {name.split("/")[0] for name in OFFICIAL} == {*peers.split(), "zero_shot"}
    assert len(OFFICIAL) == 18 and len(SETS) == 11
    for name in OFFICIAL:
        for number, of in enumerate(SETS):
            recipe = read_recipe(name, [f"data.set={of}", f"data.shots={2 ** (number % 5)}"])
            check_recipe(recipe)
            assert recipe["protocol"] == "official" and recipe["seed"] == 1 and recipe["data"]["root"] == "data"


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("coop/official", [], {"optimizer.lr": 0.002, "trainer.max_epochs": 100, "data.batch_size": 32}),
        ("coop/official_base_to_novel", [], {"optimizer.lr": 0.002, "trainer.max_epochs": 50}),
        ("cocoop/official", [], {"optimizer.lr": 0.001, "trainer.max_epochs": 10, "data.batch_size": 1}),
        ("kgcoop/official", ["data.set=BUSI"], {"method.adapter.weight": 10.0, "data.batch_size": 128}),
        ("kgcoop/official", ["data.set=RETINA"], {"method.adapter.weight": 1.0}),
        ("kgcoop/official_base_to_novel", ["data.set=BTMRI"], {"method.adapter.weight": 8.0}),
        ("prograd/official", ["data.set=DermaMNIST"], {"method.adapter.temperature": 4.0, "optimizer.lr": 0.002}),
        ("prograd/official_base_to_novel", [], {"method.adapter.temperature": 1.0, "optimizer.lr": 0.0015}),
        ("biomedcoop/official", ["data.set=KneeXray"], {"method.adapter.kdsp": 20.0, "method.adapter.tau": 1.75}),
        (
            "biomedcoop/official_base_to_novel",
            ["data.set=KneeXray"],
            {"method.adapter.kdsp": 3.0, "method.adapter.tau": 1.25},
        ),
        ("clip_adapter/official", [], {"optimizer.lr": 0.01, "optimizer.momentum": 0.0, "method.adapter.ratio": 0.5}),
        ("tip_adapter_f/official", ["data.shots=4"], {"optimizer.eps": 1e-4, "method.adapter.per_class": 4}),
        ("taskres/official", ["data.shots=4"], {"trainer.max_epochs": 100, "optimizer.weight_decay": 5e-4}),
        ("taskres/official", ["data.shots=8"], {"trainer.max_epochs": 200, "data.augment": "crop_flip"}),
        ("maple/official", [], {"optimizer.lr": 0.0035, "trainer.max_epochs": 5, "data.batch_size": 4}),
        (
            "lora/official",
            ["data.shots=1"],
            {"trainer.max_steps": 500, "trainer.max_epochs": -1, "data.drop_last": False},
        ),
        ("lora/official", [], {"trainer.max_steps": 8000, "optimizer.lr": 2e-4}),
    ],
)
def test_hyperparameters_are_the_authors(name, settings, expected):
    recipe = read_recipe(name, settings)
    for key, value in expected.items():
        node = recipe.content
        for part in key.split("."):
            node = node[part]
        assert node == value, key


@pytest.mark.parametrize("name", [name for name in OFFICIAL if not name.endswith("novel")])
def test_each_trains_and_is_measured(name, stand_ins, tmp_path):
    short = ["trainer.max_steps=2"] if name == "lora/official" else ["trainer.max_epochs=2"]
    recipe = read_recipe(name, [*settings_of(name, stand_ins), *short, "data.batch_size=3"])
    run = train(recipe, tmp_path / "run")
    evaluation = open_evaluation(run, device="cpu")
    metrics = evaluate(evaluation, progress=False)
    assert evaluation.data.image_transform.resize_mode == "shortest" and evaluation.data.image_size is None
    assert metrics["accuracy"].n == 12 and 0 <= metrics["accuracy"].value <= 1
    if name == "coop/official":
        log = (run / "recipe.yaml").read_text()
        assert "protocol: official" in log and "variants" not in log


def test_a_comparison_says_whose_protocol_a_row_has(stand_ins, tmp_path):
    settings, _ = stand_ins
    recipes = ["coop/official_base_to_novel", "maple/official"]
    over = {"data.set": ["BTMRI", "Kvasir"]}
    overrides = [*settings, "trainer.max_epochs=1"]
    rows = compare(
        recipes, tmp_path, shots=[2], seeds=[1], protocol="base_to_novel", overrides=overrides, over=over, device="cpu"
    )
    rows = [row for row in rows if not row.baseline]
    assert [row.protocol for row in rows] == ["official", "official"]
    names = ["base", "novel", "harmonic_mean", "mean_of_harmonic_means", "BTMRI", "Kvasir"]
    assert all(list(row.metrics) == names for row in rows)
    table = (tmp_path / "table.md").read_text().splitlines()
    assert table[0].startswith("| recipe | protocol | setting |") and "| maple/official | official |" in table[3]
