"""Plans: against textbook numbers, against each other, and beside the memory that a real run takes."""

import json
import os
import subprocess
import sys
from functools import cache

import pytest
from torch.utils.flop_counter import FlopCounterMode

from zoo.config.recipe import list_recipes, read_recipe
from zoo.data.chest_drr.datasets.films import ChestDrrFilms
from zoo.engine.assembly import assemble
from zoo.engine.memory import ATTENTION_FLOPS
from zoo.engine.planning import Plan, plan

FULL_SIZE = "medseg_r/llava_7b_sam_vit_h"


@cache
def planned(name: str, *settings: str) -> Plan:
    return plan(read_recipe(name, list(settings)))


def recipes_of_their_own() -> list[str]:
    """One recipe of those that differ in their data and prompt template alone; of the official ones, the dearest and what needs texts."""
    first: dict[str, str] = {}
    official = ("biomedcoop/official", "cocoop/official")
    for name in (name for name in list_recipes() if "/official" not in name or name in official):
        content = read_recipe(name).content
        method = {key: value for key, value in content["method"].items() if key != "template"}
        first.setdefault(json.dumps([method, content["trainer"]], sort_keys=True), name)
    return list(first.values())


@pytest.mark.parametrize("name", recipes_of_their_own())
def test_every_recipe_is_planned_at_its_full_size(name):
    result = planned(name)
    total, trained = result.parameters
    assert total >= trained >= 0 and total > 1_000_000
    assert result.flops > 0 and result.memory["weights"] > 0
    assert all(size >= 0 for size in result.memory.values())
    assert result.peak == sum(result.memory.values())
    if name.startswith("nearl_clip/vitb16"):
        assert trained == 1_458_432
    if name.endswith("_24gb"):
        assert result.peak < 22e9, "CUDA itself needs room too"


def test_zero_shot_trains_nothing_and_keeps_nothing():
    result = planned("zero_shot/chest_drr_16shot")
    assert result.parameters[1] == result.memory["gradients"] == result.memory["optimizer"] == 0


def test_flops_and_activations_follow_the_batch():
    name = "nearl_clip/chest_drr_16shot"
    small, large = (planned(name, f"data.batch_size={size}") for size in (4, 8))
    assert large.flops == pytest.approx(2 * small.flops, rel=0.02)
    assert large.memory["activations"] == pytest.approx(2 * small.memory["activations"], rel=0.05)


@pytest.mark.parametrize("setting", ["trainer.precision=bf16-true", "method.base_precision=bf16"])
def test_a_base_of_two_bytes_leaves_what_trains_in_four(setting):
    name, tower = "nearl_clip/chest_drr_16shot", ["init_from=null", "method.clip={name: small_clip}"]
    whole, half = (planned(name, "data.batch_size=2", *tower, *more) for more in ([], [setting]))
    total, trained = whole.parameters
    assert whole.memory["weights"] - half.memory["weights"] == 2 * (total - trained)
    assert half.memory["gradients"] == whole.memory["gradients"] == 4 * trained
    assert half.memory["activations"] < 0.75 * whole.memory["activations"]


def test_a_base_that_is_not_here_is_planned_as_it_is_published():
    result = planned("medseg_r/qwen2_5_vl_7b_sam_vit_l", "trainer.precision=32-true")
    assert result.memory["weights"] == pytest.approx(2 * 8.29e9 + 4 * 0.33e9, rel=0.01), (
        "Qwen in bfloat16, SAM in float32"
    )
    assert any("Qwen/Qwen2.5-VL-7B-Instruct is not here" in note and "bfloat16" in note for note in result.notes)


def test_nf4_and_gradient_checkpointing_take_what_they_say():
    plain = planned(FULL_SIZE, "method.train_vocabulary=new")
    small = planned(f"{FULL_SIZE}_24gb")
    assert plain.parameters == small.parameters
    blocks = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    saved = plain.memory["weights"] - small.memory["weights"]
    assert saved == pytest.approx(blocks * (2 - (4 + 8 / 64 + 32 / (64 * 256)) / 8), rel=1e-3)
    assert small.memory["activations"] < 0.2 * plain.memory["activations"]
    assert 1.1 * plain.flops < small.flops < 1.6 * plain.flops, "blocks are computed once more"


def test_strategies_share_out_what_they_say():
    """Of a CLIP that trains whole: DDP copies gradients into buckets, FSDP gathers weights, ZeRO-2 leaves them."""
    name, sizes = "clip_pretraining/chest_drr", ["data.batch_size=4"]
    single = planned(name, *sizes).memory
    ddp, fsdp, zero2, zero3 = (
        planned(name, *sizes, "trainer.devices=4", f"trainer.strategy={strategy}").memory
        for strategy in ("ddp", "fsdp", "deepspeed_stage_2", "deepspeed_stage_3")
    )
    for part in ("weights", "gradients", "optimizer", "activations"):
        assert ddp[part] == single[part]
        assert fsdp[part] == zero3[part] == (single[part] if part == "activations" else single[part] // 4)
    assert ddp["workspace"] == single["workspace"] + single["gradients"]
    assert zero2["weights"] == single["weights"] and zero2["optimizer"] == single["optimizer"] // 4
    gathered = fsdp["workspace"] - single["workspace"]
    assert 0 < gathered < single["weights"]


@pytest.mark.parametrize(
    ("name", "tower"),
    [
        ("clip_pretraining/chest_drr", []),
        ("vq_tokenizer/chest_drr", []),
        ("nearl_clip/chest_drr_16shot", ["method.clip={name: small_clip}"]),  # a plan does not read MiniLM's tokenizer
    ],
)
def test_planned_flops_are_those_of_a_real_step(name, tower):
    """Counted by torch around a forward and backward pass of the model with real weights."""
    settings = ["init_from=null", "trainer.accelerator=cpu", *tower]
    method = assemble(read_recipe(name, settings)).method.train()
    batch = method.example_batch()
    with FlopCounterMode(display=False, custom_mapping=ATTENTION_FLOPS) as counter:
        method.losses(batch)["loss"].backward()
    result = planned(name, *settings, f"data.batch_size={len(batch['image'])}")
    assert result.flops == counter.get_total_flops() > 1e9


def test_planned_flops_of_a_clip_are_the_textbooks():
    """A matrix product takes 2 m n k forward and twice that backward; attention two products forward and five backward.

    Images have 64 patches and a class token, the longer of the two texts of the example batch 7 tokens.
    """
    batch, embedding, layers = 2, 128, 12
    flops = 0
    for tokens, width in ((65, 192), (7, 128)):
        matrices = 12 * width**2 * tokens * layers + width * embedding
        attention = 2 * tokens**2 * width * layers
        flops += batch * (3 * 2 * matrices + (1 + 2.5) * 2 * attention)
    patches = 2 * 2 * batch * 64 * (3 * 16 * 16) * 192  # no gradient of the pixels
    result = planned("clip_pretraining/chest_drr", f"data.batch_size={batch}")
    assert result.flops == pytest.approx(flops + patches, rel=0.001)


CLIP = (
    "clip_pretraining/chest_drr method.clip.width=768 method.clip.text_width=512 method.clip.embedding=512 "
    "data.batch_size=8 trainer.max_epochs=null"
)
"""150 M parameters, all trained: weights, gradients and optimizer state are most of it."""


LORA = (
    "medseg_r/chest_drr init_from=null data.batch_size=4 method.cache_limit_gb=0 trainer.max_epochs=null "
    "trainer.precision=32-true method.context.model.gradient_checkpointing=true"
)
"""156 M parameters of which 2% train, with gradient checkpointing: activations and workspace count."""


@pytest.mark.parametrize("run", [CLIP, LORA], ids=["clip", "lora"])
def test_the_planned_peak_is_the_measured_one(run):
    """Within 10%; see measure_memory for what measures."""
    name, *settings = run.split()
    settings.append("trainer.accelerator=cpu")
    command = [sys.executable, "-m", "tests.engine.measure_memory", name, *settings]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    measured = int(done.stdout.split()[-1])
    result = planned(name, *settings)
    assert 100e6 < result.parameters[0] < 200e6
    assert result.peak == pytest.approx(measured, rel=0.10), result.memory


def test_a_recipe_without_a_batch_size_is_planned_with_the_datasets_own(tmp_path):
    recipe = tmp_path / "default.yaml"
    recipe.write_text("base: clip_pretraining/chest_drr\ndata: {name: chest_drr_films}\n")
    unset, size = planned(str(recipe)), ChestDrrFilms().loader.batch_size
    assert size > 1 and unset.flops == planned(str(recipe), f"data.batch_size={size}").flops
