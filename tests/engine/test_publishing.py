"""Publishing runs as cards, and fine-tuning from them."""

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_cards import at
from zoo.cards.store import CardError, card_chain, read_card
from zoo.config.building import resolve_recipe
from zoo.config.recipe import RecipeError, read_recipe
from zoo.engine.api import predict
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.loading import load
from zoo.engine.preflight import preflight
from zoo.engine.publishing import data_places, publish
from zoo.engine.training import train
from zoo.engine.verification import verify
from zoo.errors import ZooWarning


def test_a_card_holds_trained_weights_only_and_its_base_by_fingerprint(cards):
    record = read_card("tiny-nearl").record
    weights = load_file(cards / "tiny-nearl" / "model.safetensors")
    assert weights and all(name.startswith("adapter.") for name in weights)
    assert record.base is not None and record.base.name == "tiny-base"
    assert record.parameters_trained == sum(value.numel() for value in weights.values())
    assert [card.name for card in card_chain("tiny-nearl")] == ["tiny-base", "tiny-nearl"]


def test_a_published_card_is_not_overwritten_by_accident(cards, published_cards):
    run = published_cards.parent / "nearl"
    with pytest.raises(CardError, match="exists; increase its version"):
        publish(run, "tiny-nearl", folder=cards)
    publish(run, "tiny-nearl", folder=cards, replace=True, version="1.1.0")
    assert read_card("tiny-nearl").record.version == "1.1.0"


def test_fine_tuning_starts_from_a_cards_weights_on_other_data(cards, tmp_path, striped_folder):
    from tests.conftest import TINY_RECIPE
    from zoo.engine.assembly import assemble

    other = tmp_path / "other"
    for split in ("train", "val", "test"):
        for name in ("stripes", "dots"):
            shutil.copytree(striped_folder / split / name, other / split / f"{name} seen again")
    recipe = tmp_path / "fine.yaml"
    recipe.write_text(TINY_RECIPE.format(folder=other) + "init_from: tiny-nearl\n")
    method = assemble(read_recipe(recipe)).method
    for name, value in load_file(cards / "tiny-nearl" / "model.safetensors").items():
        assert torch.equal(method.state_dict()[name], value)
    assert method.class_names == ["dots seen again", "stripes seen again"]
    folder = train(read_recipe(recipe, ["trainer.max_epochs=1"]), tmp_path / "run")
    target = publish(folder, "tiny-fine", folder=cards)
    assert all(result.holds for result in verify("tiny-fine", at(other), progress=False))
    assert [card.name for card in card_chain(target.name)] == ["tiny-base", "tiny-nearl", "tiny-fine"]


@pytest.mark.parametrize(
    ("license", "message", "stated"),
    [
        (None, "no licence is given, so the card says 'unknown'", "unknown"),
        ("apache2", "'apache2' is not a licence name of the Hugging Face Hub; did you mean apache-2.0", "apache2"),
    ],
)
def test_a_licence_is_never_chosen_for_its_owner(license, message, stated, cards, published_cards):
    with pytest.warns(ZooWarning, match=message):
        publish(published_cards.parent / "nearl", "tiny-nearl", folder=cards, replace=True, license=license)
    assert read_card("tiny-nearl").record.license == stated


def test_a_known_licence_passes_without_a_warning(cards, published_cards):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ZooWarning)
        publish(published_cards.parent / "nearl", "tiny-nearl", folder=cards, replace=True, license="cc-by-nc-4.0")
    assert read_card("tiny-nearl").record.license == "cc-by-nc-4.0"


def test_the_old_card_stays_until_the_new_one_is_whole(cards, published_cards, striped_folder, monkeypatch):
    import zoo.engine.publishing as publishing

    run, before = published_cards.parent / "nearl", (cards / "tiny-nearl" / "README.md").read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "write_prose", full)
        with pytest.raises(OSError, match="No space left"):
            publish(run, "tiny-nearl", folder=cards, replace=True)
    assert (cards / "tiny-nearl" / "README.md").read_text() == before
    assert all(result.holds for result in verify("tiny-nearl", at(striped_folder), progress=False))
    assert not [path for path in cards.iterdir() if path.name.startswith(".")], "no draft is left"
    publish(run, "tiny-nearl", folder=cards, replace=True, license="cc-by-4.0")
    assert read_card("tiny-nearl").record.license == "cc-by-4.0"


def test_what_cannot_be_measured_is_no_number_of_a_card(cards, published_cards, striped_folder, monkeypatch):
    """The user's own questions have no kinds, targets or findings; NaN is within no tolerance."""
    from zoo.methods.nearl_clip import NearlClip

    metrics = NearlClip.metrics
    monkeypatch.setattr(
        NearlClip, "metrics", lambda self: {**metrics(self), "giou_nodule": lambda outputs: float("nan")}
    )
    (published_cards.parent / "nearl" / "outputs-test.safetensors").unlink(missing_ok=True)
    publish(published_cards.parent / "nearl", "tiny-nan", folder=cards)
    record = read_card("tiny-nan").record
    assert {metric.name for metric in record.metrics} == {"accuracy", "macro_f1", "auroc"}
    assert ".nan" not in (cards / "tiny-nan" / "README.md").read_text()
    assert all(result.holds for result in verify("tiny-nan", at(striped_folder), progress=False))


@pytest.mark.parametrize("name", ["../evil", "has space", "", "a/b", ".hidden"])
def test_a_name_that_is_none_is_refused_before_anything_is_loaded(published_cards, tmp_path, name):
    with pytest.raises(CardError, match="is not a valid card name"):
        publish(published_cards.parent / "nearl", name, folder=tmp_path / "cards")
    assert not (tmp_path / "cards").exists()


def _everything(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() + path.name.encode() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("written", ["relative", "absolute"])
@pytest.mark.parametrize("dataset", ["image_csv", "image_folder"])
def test_a_run_and_its_card_work_from_anywhere_and_the_card_names_no_place(
    dataset, written, tmp_path, striped_folder, monkeypatch
):
    from tests.conftest import TINY_RECIPE

    home = tmp_path / "home of someone"
    mine = shutil.copytree(striped_folder, home / "films")
    rows = [f"{path.relative_to(mine)},{path.parent.name},{path.parts[-3]}" for path in sorted(mine.rglob("*.png"))]
    (mine / "table.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    key, place = ("table", "films/table.csv") if dataset == "image_csv" else ("folder", "films")
    recipe = TINY_RECIPE.format(folder=home / place if written == "absolute" else place)
    recipe = recipe.replace("image_folder, folder:", f"{dataset}, {key}:")
    (home / "mine.yaml").write_text(recipe)
    monkeypatch.chdir(home)
    run = train(read_recipe("mine.yaml", ["trainer.max_epochs=1"]), "runs/mine").absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (run / "model.safetensors").unlink()
    train(run / "recipe.yaml", resume=True)
    metrics = evaluate(open_evaluation(run))
    card = publish(
        run, "mine", license="mit", data_license="none", data_source="Films of our ward.", limitations="Few."
    ).resolve()
    assert card == tmp_path / "elsewhere" / "checkpoints" / "mine", "in the user's folder"
    for name in (str(tmp_path), tmp_path.name, home.name, str(Path.home())):
        assert name.encode() not in _everything(card), name
    record = read_card("mine").record
    assert record.data.license == "none" and record.limitations == "Few."
    assert record.data.source.startswith(
        f"Films of our ward. They are not in the card; to evaluate it: zoo eval CARD data.{key}="
    )
    monkeypatch.chdir(tmp_path)
    assert predict(card, mine / "test" / "dots" / "test00.png")[0].to_dict()
    with pytest.raises(RecipeError, match=f"data.{key}: was a file or folder of the machine .* as data.{key}=PATH"):
        open_evaluation(card)
    with pytest.raises(RecipeError, match=f"data.{key}: was a file or folder of the machine"):
        preflight(resolve_recipe(read_recipe(card / "recipe.yaml")), to_run=True)
    assert evaluate(open_evaluation(card, data_places(run))) == metrics
    assert all(result.holds for result in verify(card, data_places(run), progress=False))


def test_a_base_in_a_local_folder_is_not_named(cards, published_cards, striped_folder, tmp_path, monkeypatch):
    """``init_from`` of a folder becomes the card's name, which is looked for beside the card too."""
    from tests.conftest import TINY_RECIPE

    recipe = tmp_path / "fine.yaml"
    recipe.write_text(TINY_RECIPE.format(folder=striped_folder) + f"init_from: {cards / 'tiny-base'}\n")
    run = train(read_recipe(recipe, ["trainer.max_epochs=1"]), tmp_path / "run")
    card = publish(run, "tiny-fine", license="mit")
    assert str(tmp_path).encode() not in _everything(card) and read_card(card).record.base.name == "tiny-base"
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "none"))
    assert load(card).class_names == ["blank film", "dots", "stripes"]


def test_publishing_an_unfinished_run_says_how_to_finish_it(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(CardError, match="run is not a finished run; it has no model.safetensors"):
        publish(run, "mine", folder=tmp_path)
    (run / "recipe.yaml").touch()
    with pytest.raises(CardError, match=r"train again: zoo train .*run/recipe.yaml --out"):
        publish(run, "mine", folder=tmp_path)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(CardError, match=r"resume it with: zoo train .*run/recipe.yaml --resume"):
        publish(run, "mine", folder=tmp_path)
