"""zoo eval of masks: outlines beside overlap, and a row for each target, whatever the vocabulary."""

import json
import math

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.data.io.dicom_files import write_dicom
from tests.small_recipes import write_recipe
from tests.tiny_models import causal_lm, medseg_files
from zoo.cli.app import app
from zoo.config.recipe import read_recipe
from zoo.data.conversations.records import SEG, Conversation, Target, Turn, to_record
from zoo.data.io.masks import encode_mask
from zoo.engine.evaluation import collect, open_evaluation
from zoo.engine.targets import ABSENT, SEVERAL, measure_outlines, target_name, target_rows
from zoo.engine.training import train
from zoo.metrics.surfaces import surface_row

MASK = np.zeros((64, 48), bool)
MASK[10:40, 8:30] = True


def records(folder):
    """Films of 0.5 by 0.25 mm with targets that no vocabulary of the zoo has."""
    lines = []
    rng = np.random.default_rng(0)
    for index in range(4):
        name = f"{index}.dcm"
        pixels = (rng.integers(0, 60, MASK.shape) + 120 * np.roll(MASK, index, 1)).astype(np.uint8)
        write_dicom(folder / name, pixels, ImagerPixelSpacing=[0.5, 0.25])
        name_of = ("gossypiboma", "bezoar")[index % 2]
        masks, targets = (encode_mask(np.roll(MASK, index, 1)),), (Target(name_of),)
        turns = [Turn(f"Where is the {name_of}?", f"Here {SEG}.", masks, targets)]
        turns += [Turn("And the ulcer?", "There is none.")] if index == 0 else []
        lines.append(json.dumps(to_record(Conversation(folder / name, tuple(turns)), name)))
    (folder / "data.jsonl").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    (folder / "medseg").mkdir()
    records(folder / "medseg")
    causal_lm(folder / "lm")
    return train(read_recipe(write_recipe(folder, "medseg_r causal_lm unet")), folder / "run")


def test_eval_prints_a_row_for_each_target(run):
    done = CliRunner().invoke(app, ["eval", str(run), "--json", "--tolerance", "3"])
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    rows = {row["target"]: row for row in content["details"]["targets"]}
    assert list(rows) == ["bezoar", "gossypiboma", ABSENT] and [row["n"] for row in rows.values()] == [2, 2, 1]
    for row in (rows["bezoar"], rows["gossypiboma"]):
        assert set(row) == {"target", "n", "gIoU", "Dice", "HD95", "NSD", "HD95, mm", "NSD, mm"}
        assert 0 <= row["NSD"] <= 1 and 0 < row["HD95, mm"] < row["HD95"] <= math.hypot(64, 48)
    assert content["hd95"]["n"] == 5 and content["hd95"]["value"] == pytest.approx(
        (rows["bezoar"]["HD95"] + rows["gossypiboma"]["HD95"]) / 2, rel=1e-5
    )
    printed = CliRunner().invoke(app, ["eval", str(run)]).output
    assert "targets" in printed and "gossypiboma" in printed and "hd95_mm" in printed


def test_numbers_of_cards_are_measured_without(run):
    evaluation = open_evaluation(run)
    plain = collect(evaluation)
    assert "surfaces" not in plain and "hd95" not in evaluation.method.metrics()
    measure_outlines(evaluation.method, 2.0)
    more = collect(evaluation)
    for name, value in plain.items():
        assert torch.equal(value.nan_to_num(-9), more[name].nan_to_num(-9)), name
    assert more["surfaces"].shape == (5, 4)
    done = CliRunner().invoke(app, ["eval", str(run), "--no-details", "--json"])
    assert set(json.loads(done.stdout)) == set(open_evaluation(run).method.metrics())
    rows = target_rows(evaluation.data, plain, "test")
    assert [set(row) for row in rows] == [{"target", "n", "gIoU", "Dice"}] * 3
    limited = {name: value[:3] for name, value in plain.items()}
    assert sum(row["n"] for row in target_rows(evaluation.data, limited, "test")) == 3


def test_an_oracle_has_outlines_and_targets_too(tmp_path):
    medseg_files(tmp_path / "medseg")
    run = train(read_recipe(write_recipe(tmp_path, "finding_unet")), tmp_path / "run")
    content = json.loads(CliRunner().invoke(app, ["eval", str(run), "--json"]).stdout)
    rows = content["details"]["targets"]
    assert rows and ABSENT not in [row["target"] for row in rows] and "HD95, mm" not in rows[0]
    assert content["hd95"]["value"] >= 0 and math.isnan(content["hd95_mm"]["value"] or math.nan)
    evaluation = open_evaluation(run)
    measure_outlines(evaluation.method, 2.0)
    turn = evaluation.data.split("test")[0]
    assert surface_row(turn["masks"], turn["masks"], None, 2.0)[:2] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (Turn("?", "No."), ABSENT),
        (Turn("?", f"A {SEG}", (1,), targets=(Target("nodule", side="left"),)), "left nodule"),
        (Turn("?", f"A {SEG} {SEG}", (1, 2), targets=(Target("nodule"), Target("nodule"))), "nodule"),
        (Turn("?", f"A {SEG} {SEG}", (1, 2), targets=(Target("nodule"), Target("cyst"))), SEVERAL),
        (Turn("?", f"It is {SEG}", (1,)), "mask"),
        (Turn("?", f"The spleen {SEG}", (1,)), "The spleen"),
    ],
)
def test_names_of_targets(turn, name):
    assert target_name(turn) == name
