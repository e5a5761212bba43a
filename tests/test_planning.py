import json

import pytest

from zoo.config.recipe import list_recipes, read_recipe
from zoo.engine.planning import plan


def recipes_of_their_own() -> list[str]:
    """One recipe of those that differ in their data and prompt template alone."""
    first: dict[str, str] = {}
    for name in list_recipes():
        content = read_recipe(name).content
        method = {key: value for key, value in content["method"].items() if key != "template"}
        first.setdefault(json.dumps([method, content["trainer"]], sort_keys=True), name)
    return list(first.values())


@pytest.mark.parametrize("name", recipes_of_their_own())
def test_every_recipe_is_planned_at_its_full_size(name):
    made = plan(read_recipe(name))
    total, trained = made.parameters
    assert total >= trained >= 0 and total > 1_000_000
    assert made.flops > 0 and made.memory["weights"] > 0
    if name.startswith("nearl_clip/vitb16"):
        assert trained == 1_458_432


def test_zero_shot_trains_nothing_and_keeps_nothing():
    made = plan(read_recipe("zero_shot/chest_drr_16shot"))
    assert made.parameters[1] == 0 and made.memory["optimizer"] == 0


def test_flops_follow_the_batch_and_memory_the_precision():
    name = "nearl_clip/chest_drr_16shot"
    small, large = (plan(read_recipe(name, [f"data.batch_size={size}"])) for size in (4, 8))
    assert large.flops == pytest.approx(2 * small.flops, rel=0.02)
    assert large.memory["activations"] == pytest.approx(2 * small.memory["activations"], rel=0.05)
    half = plan(read_recipe(name, ["data.batch_size=4", "trainer.precision=bf16-true"]))
    assert half.memory["weights"] * 2 == small.memory["weights"]


def test_sharding_divides_what_it_shards():
    name = "clip_pretraining/chest_drr"
    ddp = plan(read_recipe(name, ["trainer.devices=4", "trainer.strategy=ddp"]))
    fsdp = plan(read_recipe(name, ["trainer.devices=4", "trainer.strategy=fsdp"]))
    zero2 = plan(read_recipe(name, ["trainer.devices=4", "trainer.strategy=deepspeed_stage_2"]))
    assert fsdp.memory["weights"] == ddp.memory["weights"] // 4
    assert (
        zero2.memory["weights"] == ddp.memory["weights"] and zero2.memory["optimizer"] == ddp.memory["optimizer"] // 4
    )


def test_flops_of_a_linear_layer_are_the_textbooks():
    """Forward 2 m n k, backward twice that, counted by torch; the planned image tower alone must exceed it."""
    made = plan(read_recipe("clip_pretraining/chest_drr", ["data.batch_size=2"]))
    tokens, width, layers = 65, 192, 12
    matrices = 2 * tokens * (12 * width * width) * layers
    attention = 4 * tokens * tokens * width * layers
    assert made.flops > 2 * 3 * (matrices + attention)
    assert made.flops < 2 * 3 * (matrices + attention) * 2.5
