"""Values out of bounds are found by ``zoo check``, each with its key, and no message is a traceback."""

import pytest
from typer.testing import CliRunner

from zoo.cli.app import app
from zoo.config.building import check_recipe
from zoo.config.recipe import RecipeError, list_recipes, read_recipe

RECIPE = "nearl_clip/chest_drr_16shot"
OUT_OF_BOUNDS = [
    "seed=true",
    "seed=1.5",
    "data.num_workers=100000",
    "data.render_workers=0",
    "data.render_workers=100000",
    "data.shots=0",
    "data.image_size=0",
    "data.image_size=1000000000",
    "data.batch_size=0",
    "data.batch_size=1000000000000",
    "data.batch_size=${data.nowhere}",
    "optimizer.lr=.nan",
    "optimizer.lr=.inf",
    "optimizer.lr=-1",
    "method.useformer.width=1000000000",
    "method.adapter.rank=0",
    "init_from=no-such-card",
    "init_from=3",
    "trainer.logger=true",
    "trainer.callbacks=null",
    "trainer.plugins=[x]",
    "trainer.enable_checkpointing=false",
    "trainer.default_root_dir=/",
    "trainer.barebones=true",
    "trainer.devices=0",
    "trainer.devices=-3",
    "trainer.accelerator=abacus",
    "trainer.max_epochs=0.5",
    "trainer.fast_dev_run=-1",
    "trainer.limit_train_batches=1.5",
    "trainer.limit_test_batches=-1",
    "trainer.overfit_batches=-1",
    "trainer.val_check_interval=-1",
    "trainer.max_time=soon",
    "trainer.gradient_clip_val=.inf",
    "trainer.precision=foo",
]


@pytest.mark.parametrize("override", OUT_OF_BOUNDS)
def test_values_out_of_bounds_are_found_before_anything_is_built(override):
    from zoo.config.building import resolve_recipe
    from zoo.engine.preflight import preflight

    with pytest.raises(RecipeError) as caught:
        preflight(resolve_recipe(read_recipe(RECIPE, [override])))
    assert [problem.key for problem in caught.value.problems] == [override.split("=")[0]]


def test_all_are_reported_at_once_as_lines():
    overrides = [item for item in OUT_OF_BOUNDS if "init_from" not in item and "nowhere" not in item]
    overrides = list({item.split("=")[0]: item for item in overrides}.values())
    result = CliRunner().invoke(app, ["check", RECIPE, *overrides])
    assert result.exit_code == 1 and "Traceback" not in result.output + result.stderr
    for key in (item.split("=")[0] for item in overrides):
        assert f"{key}: " in result.output + result.stderr


@pytest.mark.parametrize(
    "override",
    [
        "trainer.max_time=00:12:00:00",
        "trainer.limit_train_batches=0.5",
        "trainer.limit_train_batches=10",
        "trainer.devices=-1",
        "trainer.devices=[0]",
        "trainer.devices=auto",
        "trainer.val_check_interval=0.25",
        "trainer.fast_dev_run=true",
        "trainer.max_epochs=-1",
        "data.num_workers=8",
        "seed=4294967295",
    ],
)
def test_values_in_bounds_are_accepted(override):
    check_recipe(read_recipe(RECIPE, [override]))


def test_every_published_recipe_is_in_bounds():
    for name in list_recipes():
        check_recipe(read_recipe(name))
