"""Cards to and from the Hugging Face Hub."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.tiny_cards import change_record
from zoo.cards.hub import pull, push
from zoo.cards.store import CardError, read_card
from zoo.engine.loading import load


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
    repositories = []

    class Api:
        def create_repo(self, repo, exist_ok):
            repositories.append(repo)

        def upload_folder(self, *, repo_id, folder_path, allow_patterns, commit_message):
            shutil.copytree(folder_path, remote)
            return type("Commit", (), {"commit_url": f"https://example.org/{repo_id}/commit/1"})()

    def snapshot_download(repo, revision, local_dir, allow_patterns):
        assert repo == "me/tiny" and "model.safetensors" in allow_patterns
        shutil.copytree(remote, local_dir)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    assert push("tiny-nearl", "me/tiny").endswith("me/tiny/commit/1") and repositories == ["me/tiny"]
    assert read_card(pull("me/tiny")).record == read_card(cards / "tiny-nearl").record


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
