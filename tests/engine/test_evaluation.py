"""Evaluation of runs, on their classes and on others."""

from pathlib import Path

import pytest

from zoo.cards.store import CardError
from zoo.config.recipe import read_recipe
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.training import train


def run(recipe: Path, out: Path, *settings: str, resume: bool = False) -> Path:
    return train(read_recipe(recipe, settings), out, resume=resume)


@pytest.mark.parametrize(
    "adapter", ["zero_shot", "linear_probe", "coop", "clip_adapter", "tip_adapter", "tip_adapter_f", "maple", "lora"]
)
def test_every_peer_trains_and_is_measured_under_the_same_contract(adapter, tiny_recipe, tmp_path):
    size = "width: 64, layers: 3, text_width: 32, text_layers: 3, embedding: 32, image_size: 32, patch_size: 8"
    setting = [f"method={{name: clip_adaptation, clip: {{name: small_clip, {size}}}, adapter: {{name: {adapter}}}}}"]
    folder = run(tiny_recipe, tmp_path / adapter, *setting, "trainer.max_epochs=1")
    first = evaluate(open_evaluation(folder), progress=False)
    assert set(first) == {"accuracy", "macro_f1", "auroc"}
    assert first == evaluate(open_evaluation(folder), progress=False)


def test_other_classes_are_measured_where_weights_do_not_depend_on_them(tiny_recipe, tmp_path):
    folder = run(tiny_recipe, tmp_path / "nearl", "trainer.max_epochs=1")
    novel = open_evaluation(folder, ["data.classes=base"])
    assert novel.method.class_names == ["blank film", "dots"]
    size = "width: 64, layers: 3, text_width: 32, text_layers: 3, embedding: 32, image_size: 32, patch_size: 8"
    probe = f"method={{name: clip_adaptation, clip: {{name: small_clip, {size}}}, adapter: {{name: linear_probe}}}}"
    folder = run(tiny_recipe, tmp_path / "probe", probe, "trainer.max_epochs=1")
    base = open_evaluation(folder, ["data.classes=base"])
    assert base.method.class_names == ["blank film", "dots", "stripes"], "among all that its weights are for"
    assert {item.label for item in base.data.split("test").items} == {0, 1}


def test_a_source_that_is_neither_run_nor_card_is_named(tmp_path):
    with pytest.raises(CardError, match="runs/none is neither a run folder nor a card in .*; there are: .*clip-small"):
        open_evaluation("runs/none")
    with pytest.raises(CardError, match="holds neither a run .* nor a card"):
        open_evaluation(tmp_path)
    with pytest.raises(CardError, match="did you mean clip-small-chest-drr"):
        open_evaluation("clip-small-chest-dr")
