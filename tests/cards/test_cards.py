"""A card's whole life: published, loaded, verified, tampered with, pulled, fine-tuned from."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from zoo.cards.hub import pull, push
from zoo.cards.store import CardError, card_chain, read_card, read_front_matter
from zoo.config.recipe import read_recipe
from zoo.engine.loading import load
from zoo.engine.publishing import publish
from zoo.engine.training import train
from zoo.engine.verification import verify


@pytest.fixture(scope="module")
def published(tmp_path_factory, striped_folder) -> Path:
    """A folder with the cards "tiny-base" (a CLIP) and "tiny-nearl" (trained on it)."""
    from tests.conftest import TINY_RECIPE

    root = tmp_path_factory.mktemp("cards")
    base_recipe = root / "base.yaml"
    base_recipe.write_text(
        "data: {name: chest_drr, size: 64, image_size: 32, batch_size: 16, findings: [cardiomegaly]}\n"
        "method: {name: clip_pretraining, clip: {name: small_clip, image_size: 32, patch_size: 8, width: 64, layers: 3, "
        "text_width: 32, text_layers: 3, embedding: 32, weights_seed: 7}}\n"
        "optimizer: {name: adamw}\ntrainer: {max_epochs: 1, enable_progress_bar: false, accelerator: cpu}\n"
    )
    cards = root / "checkpoints"
    publish(train(read_recipe(base_recipe), root / "base"), "tiny-base", half=True, folder=cards)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CHECKPOINTS", str(cards))
        recipe = root / "nearl.yaml"
        recipe.write_text(TINY_RECIPE.format(folder=striped_folder) + "init_from: tiny-base\n")
        publish(train(read_recipe(recipe), root / "nearl"), "tiny-nearl", folder=cards)
    return cards


@pytest.fixture
def cards(published, tmp_path, monkeypatch) -> Path:
    """A copy of the published cards that a test may damage."""
    copy = tmp_path / "checkpoints"
    shutil.copytree(published, copy)
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(copy))
    return copy


def change_record(card: Path, change) -> None:
    text = (card / "README.md").read_text()
    front = read_front_matter(card / "README.md")
    change(front)
    prose = text.split("---\n", maxsplit=2)[2]
    (card / "README.md").write_text(f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n{prose}")


def test_verify_measures_the_same_numbers(cards):
    for name in ("tiny-base", "tiny-nearl"):
        checked = verify(name, progress=False)
        assert checked and all(result.holds for result in checked)
        assert all(abs(result.measured - result.metric.value) < 1e-4 for result in checked)


def test_a_card_holds_trained_weights_only_and_its_base_by_fingerprint(cards):
    record = read_card("tiny-nearl").record
    weights = load_file(cards / "tiny-nearl" / "model.safetensors")
    assert weights and all(name.startswith("adapter.") for name in weights)
    assert record.base is not None and record.base.name == "tiny-base"
    assert record.parameters_trained == sum(value.numel() for value in weights.values())
    assert [card.name for card in card_chain("tiny-nearl")] == ["tiny-base", "tiny-nearl"]


def test_a_card_that_several_start_from_is_loaded_once_and_first(cards):
    assert [card.name for card in card_chain(["tiny-nearl", "tiny-base"])] == ["tiny-base", "tiny-nearl"]
    assert card_chain(None) == []


def test_cards_in_a_circle_are_refused(cards):
    recipe = cards / "tiny-base" / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "init_from: [tiny-nearl]\n")
    with pytest.raises(CardError, match="circular `init_from:` reference: tiny-nearl"):
        card_chain("tiny-nearl")


def test_loading_gives_the_method_in_evaluation_mode_with_its_preprocessing(cards):
    import zoo

    method = zoo.load("tiny-nearl")
    assert not method.training and method.class_names == ["blank film", "dots", "stripes"]
    prediction = method.predict_image(torch.rand(1, 50, 70))
    assert prediction.label in method.class_names and abs(sum(prediction.probabilities.values()) - 1) < 1e-5
    assert zoo.load("tiny-nearl", for_training=True).training


def test_a_changed_byte_is_refused(cards):
    path = cards / "tiny-nearl" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CardError, match="not the file that card 'tiny-nearl' was published with"):
        load("tiny-nearl")


def test_a_changed_number_is_found_by_measuring(cards):
    def nudge(front):
        front["zoo"]["metrics"][0]["value"] += 0.25
        front["model-index"][0]["results"][0]["metrics"][0]["value"] += 0.25

    change_record(cards / "tiny-nearl", nudge)
    checked = verify("tiny-nearl", progress=False)
    assert [result.holds for result in checked] == [False, True, True]


def test_a_model_index_that_disagrees_with_the_record_is_refused(cards):
    change_record(
        cards / "tiny-nearl", lambda front: front["model-index"][0]["results"][0]["metrics"][0].update(value=1.0)
    )
    with pytest.raises(CardError, match="model-index .* differs from its record"):
        verify("tiny-nearl", progress=False)


def test_a_wrong_base_is_refused(cards):
    base = cards / "tiny-base" / "model.safetensors"
    weights = load_file(base)
    weights["clip.model.logit_scale"] += 0.5
    save_file(weights, base)
    from zoo.cards.store import sha256_of

    def accept(front):
        entry = next(file for file in front["zoo"]["files"] if file["name"] == "model.safetensors")
        entry.update(size=base.stat().st_size, sha256=sha256_of(base))

    change_record(cards / "tiny-base", accept)
    with pytest.raises(CardError, match="was trained on tiny-base with fingerprint .* and the base here has"):
        load("tiny-nearl")


def test_a_pickle_in_place_of_safetensors_is_refused_before_it_is_opened(cards, tmp_path):
    path = cards / "tiny-nearl" / "model.safetensors"
    torch.save({"adapter.x": torch.ones(1)}, path)
    with pytest.raises(CardError, match="is a pickle; the zoo loads safetensors only"):
        load("tiny-nearl")
    import pickle

    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CardError, match="is a pickle"):
        verify("tiny-nearl", progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda front: front["zoo"].update(version="one"), "version: String should match"),
        (lambda front: front["zoo"].update(metrics=[]), "metrics: List should have at least 1"),
        (
            lambda front: front["zoo"]["files"].append({"name": "../../evil", "size": 1, "sha256": "0" * 64}),
            "files.*name",
        ),
        (lambda front: front["zoo"].update(extra=1), "extra: Extra inputs"),
        (lambda front: front.pop("zoo"), "valid dictionary"),
    ],
)
def test_records_are_checked_by_the_schema(cards, change, message):
    change_record(cards / "tiny-nearl", change)
    with pytest.raises(CardError, match=message):
        read_card("tiny-nearl")


def test_cards_that_are_not_there_have_the_nearest_names(cards):
    with pytest.raises(CardError, match="did you mean tiny-nearl"):
        load("tiny-nearll")
    (cards / "tiny-nearl" / "model.safetensors").unlink()
    with pytest.raises(CardError, match=r"lacks its file model\.safetensors"):
        load("tiny-nearl")


def test_a_published_card_is_not_overwritten_by_accident(cards, published):
    run = published.parent / "nearl"
    with pytest.raises(CardError, match="exists; increase its version"):
        publish(run, "tiny-nearl", folder=cards)
    publish(run, "tiny-nearl", folder=cards, replace=True, version="1.1.0")
    assert read_card("tiny-nearl").record.version == "1.1.0"


def test_pulling_checks_hashes_and_keeps_nothing_damaged(cards, monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    target = pull(str(cards / "tiny-nearl"))
    assert target == tmp_path / "cache" / "cards" / "tiny-nearl" and (target / "model.safetensors").is_file()
    (cards / "tiny-base" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CardError, match="not the file"):
        pull(str(cards / "tiny-base"))
    assert not (tmp_path / "cache" / "cards" / "tiny-base").exists()


def test_push_and_pull_go_through_huggingface_hub(cards, monkeypatch, tmp_path):
    """The hub's client with its network calls replaced by a folder."""
    import huggingface_hub

    remote = tmp_path / "remote"
    made = []

    class Api:
        def create_repo(self, repo, exist_ok):
            made.append(repo)

        def upload_folder(self, *, repo_id, folder_path, allow_patterns, commit_message):
            shutil.copytree(folder_path, remote)
            return type("Commit", (), {"commit_url": f"https://example.org/{repo_id}/commit/1"})()

    def snapshot_download(repo, revision, local_dir, allow_patterns):
        assert repo == "me/tiny" and "model.safetensors" in allow_patterns
        shutil.copytree(remote, local_dir)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    assert push("tiny-nearl", "me/tiny").endswith("me/tiny/commit/1") and made == ["me/tiny"]
    assert read_card(pull("me/tiny")).record == read_card(cards / "tiny-nearl").record


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
    assert all(result.holds for result in verify("tiny-fine", progress=False))
    assert [card.name for card in card_chain(target.name)] == ["tiny-base", "tiny-nearl", "tiny-fine"]


def test_the_prose_has_the_records_numbers(cards):
    text = (cards / "tiny-nearl" / "README.md").read_text()
    for metric in read_card("tiny-nearl").record.metrics:
        assert re.search(rf"\| {metric.name} \| {metric.value:.4f} \| {metric.interval[0]:.4f} to", text)


def test_every_shipped_card_fits_the_schema_and_its_files(monkeypatch):
    from zoo.cards.store import check_files
    from zoo.paths import checkpoints_folder

    shipped = [path.parent for path in checkpoints_folder().glob("*/README.md")]
    assert len(shipped) >= 2
    for folder in shipped:
        card = read_card(folder)
        check_files(card)
        assert card.recipe()["method"]["name"] == card.record.method
        json.dumps(card.record.model_dump(mode="json"))


def test_a_header_that_begins_like_a_pickle_is_none(tmp_path):
    """0x80 is the low byte of one safetensors header length in 32, as of 5,248 or 8,320 bytes, and the first of a pickle."""
    from zoo.cards.store import read_safetensors

    file, met = tmp_path / "model.safetensors", set()
    for padding in range(0, 4096, 8):
        save_file({"weight": torch.ones(2)}, file, metadata={"padding": "x" * padding})
        met.add(file.read_bytes()[0])
        assert torch.equal(read_safetensors(file)["weight"], torch.ones(2))
    assert 0x80 in met


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_every_protocol_are_refused(tmp_path, protocol):
    import pickle

    from zoo.cards.store import refuse_pickle

    file = tmp_path / "model.safetensors"
    file.write_bytes(pickle.dumps({"weight": [1.0] * 3}, protocol=protocol))
    with pytest.raises(CardError, match="is a pickle"):
        refuse_pickle(file)
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CardError, match="is a pickle"):
        refuse_pickle(tmp_path / "other.safetensors")


def test_the_old_card_stays_until_the_new_one_is_whole(cards, published, monkeypatch):
    import zoo.engine.publishing as publishing

    run, before = published.parent / "nearl", (cards / "tiny-nearl" / "README.md").read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "write_prose", full)
        with pytest.raises(OSError, match="No space left"):
            publish(run, "tiny-nearl", folder=cards, replace=True)
    assert (cards / "tiny-nearl" / "README.md").read_text() == before
    assert all(result.holds for result in verify("tiny-nearl", progress=False))
    assert not [path for path in cards.iterdir() if path.name.startswith(".")], "no draft is left"
    publish(run, "tiny-nearl", folder=cards, replace=True, license="cc-by-4.0")
    assert read_card("tiny-nearl").record.license == "cc-by-4.0"


def test_what_cannot_be_measured_is_no_number_of_a_card(cards, published, monkeypatch):
    """The user's own questions have no kinds, targets or findings; NaN is within no tolerance."""
    from zoo.methods.nearl_clip import NearlClip

    metrics = NearlClip.metrics
    monkeypatch.setattr(
        NearlClip, "metrics", lambda self: {**metrics(self), "giou_nodule": lambda outputs: float("nan")}
    )
    (published.parent / "nearl" / "outputs-test.safetensors").unlink(missing_ok=True)
    publish(published.parent / "nearl", "tiny-nan", folder=cards)
    record = read_card("tiny-nan").record
    assert {metric.name for metric in record.metrics} == {"accuracy", "macro_f1", "auroc"}
    assert ".nan" not in (cards / "tiny-nan" / "README.md").read_text()
    assert all(result.holds for result in verify("tiny-nan", progress=False))


@pytest.mark.parametrize("name", ["../evil", "has space", "", "a/b", ".hidden"])
def test_a_name_that_is_none_is_refused_before_anything_is_loaded(published, tmp_path, name):
    with pytest.raises(CardError, match="is not a valid card name"):
        publish(published.parent / "nearl", name, folder=tmp_path / "cards")
    assert not (tmp_path / "cards").exists()


@pytest.fixture
def hub(cards, monkeypatch, tmp_path) -> Path:
    """A hub whose repositories are folders ``OWNER/NAME``, and an empty cache."""
    import huggingface_hub

    remote = tmp_path / "hub"

    def snapshot_download(repo, revision, local_dir, allow_patterns):
        shutil.copytree(remote / repo, local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ZOO_HUB_OWNER", raising=False)
    shutil.copytree(cards, remote / "some-lab")
    return remote / "some-lab"


def test_a_listed_card_is_pulled_from_the_configured_account_and_then_loads(hub, cards, monkeypatch, tmp_path):
    (cards / "tiny-nearl" / "model.safetensors").unlink()
    with pytest.raises(CardError, match="zoo pull OWNER/tiny-nearl"):
        load("tiny-nearl")
    with pytest.raises(CardError, match="Write OWNER/tiny-nearl, or set ZOO_HUB_OWNER"):
        pull("tiny-nearl")
    monkeypatch.setenv("ZOO_HUB_OWNER", "some-lab")
    assert pull("tiny-nearl") == tmp_path / "cache" / "cards" / "tiny-nearl"
    assert load("tiny-nearl").class_names == ["blank film", "dots", "stripes"]
    with pytest.raises(CardError, match="no card is named 'tiny-nearll'; did you mean tiny-nearl"):
        pull("tiny-nearll")


def test_a_listed_card_must_have_the_hashes_of_its_record(hub, monkeypatch, tmp_path):
    from zoo.cards.store import sha256_of

    monkeypatch.setenv("ZOO_HUB_OWNER", "some-lab")
    weights = hub / "tiny-nearl" / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)

    def accept(front):
        entry = next(file for file in front["zoo"]["files"] if file["name"] == "model.safetensors")
        entry.update(size=weights.stat().st_size, sha256=sha256_of(weights))

    change_record(hub / "tiny-nearl", accept)
    with pytest.raises(CardError, match="the hub has 'tiny-nearl' .* with other files"):
        pull("tiny-nearl")
    assert not (tmp_path / "cache" / "cards" / "tiny-nearl").exists()
    assert pull("some-lab/tiny-nearl").is_dir(), "a repository named in full is taken as it is"
