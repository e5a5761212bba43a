"""A card that lies, hides another or leads out of its folder is refused, or said."""

import os
import shutil

import pytest

from tests.tiny_cards import change_record, publish_tiny_classifier, rewrite_record
from zoo.cards.hub import pull, push
from zoo.cards.prose import check_prose, escape_markdown, render_prose
from zoo.cards.schema import CardRecord
from zoo.cards.store import CardError, list_cards, read_card, read_front_matter
from zoo.engine.loading import load
from zoo.engine.publishing import publish
from zoo.engine.verification import verify
from zoo.errors import ZooWarning

pytestmark = pytest.mark.filterwarnings("ignore:.*No positive samples")


@pytest.fixture(scope="module")
def run_and_card(tmp_path_factory, striped_folder):
    root = tmp_path_factory.mktemp("cards")
    card = publish_tiny_classifier(root, striped_folder)
    return root / "run", card


@pytest.fixture
def card(run_and_card, tmp_path, monkeypatch):
    """A card in a folder of its own, that no search finds."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "checkpoints"))
    return shutil.copytree(run_and_card[1], tmp_path / "source" / "tiny")


def test_every_card_of_the_zoo_says_what_its_record_says():
    names = list_cards()
    assert len(names) >= 9
    for name in names:
        check_prose(read_card(name))


def test_a_tolerance_without_meaning_is_refused(card, run_and_card, tmp_path):
    with pytest.raises(CardError, match="a tolerance of 1000000000.0 says nothing"):
        publish(run_and_card[0], "x", folder=tmp_path / "x", tolerance=1e9, license="mit")
    change_record(card, lambda front: front["zoo"]["metrics"][0].update(tolerance=1e9))
    with pytest.raises(CardError, match="less than or equal to 0.05"):
        verify(card)


@pytest.mark.parametrize(
    "old, new",
    [
        ("| accuracy | ", "| accuracy | 9"),
        ("## Limits", "Cures cancer.\n\n## Limits"),
        ("license: mit", "license: cc0-1.0"),
    ],
)
def test_prose_and_front_matter_that_differ_from_the_record_are_refused(card, run_and_card, tmp_path, old, new):
    folder = publish(run_and_card[0], "tiny", folder=tmp_path / "mit", license="mit")
    text = (folder / "README.md").read_text()
    assert old in text
    (folder / "README.md").write_text(text.replace(old, new, 1))
    with pytest.raises(CardError, match=r"README\.md differs from its record"):
        verify(folder)


@pytest.mark.parametrize("name", ["recipe.yaml", "model.safetensors"])
def test_recipe_and_weights_must_be_listed(card, name):
    rewrite_record(card, lambda record: record.update(files=[f for f in record["files"] if f["name"] != name]))
    for use in (verify, load):
        with pytest.raises(CardError, match=f"does not list {name}"):
            use(card)


def test_a_recipe_that_was_changed_is_refused(card):
    with (card / "recipe.yaml").open("a") as file:
        file.write("# changed\n")
    for use in (verify, load, lambda card: pull(str(card))):
        with pytest.raises(CardError, match=r"recipe\.yaml is not the file"):
            use(card)


LIMITS = [
    "one\n---\ntwo",
    "---\nzoo: {name: other}\n---\n",
    "ends in ---",
    "word " * 40 + "---\n" + "word " * 40,
    "a: b\n...\n---\nc",
    "'quote' \"quotes\" #comment ${x}",
]


@pytest.mark.parametrize("limits", LIMITS)
def test_front_matter_survives_any_text(card, limits):
    rewrite_record(card, lambda record: record.update(limitations=limits))
    assert read_card(card).record.limitations == limits
    assert read_front_matter(card / "README.md")["zoo"]["name"] == "tiny"
    check_prose(read_card(card))


def test_texts_of_a_record_are_escaped_in_the_prose(card):
    text = "<script>alert(1)</script> | [x](javascript:alert(1)) \n\n# Heading"
    rewrite_record(card, lambda record: record.update(limitations=text, input=text))
    prose = (card / "README.md").read_text().split("\n---\n")[1]
    assert "<script" not in prose and "](javascript" not in prose and "\n# Heading" not in prose
    assert "| input | &lt;script&gt;alert(1)&lt;/script&gt; \\| [x]\\(javascript" in prose
    assert escape_markdown("image in [0, 1], `x`") == "image in [0, 1], `x`" and escape_markdown(3) == 3


def test_a_pulled_card_is_not_hidden_by_another_of_its_name(card, tmp_path):
    shipped = shutil.copytree(card, tmp_path / "checkpoints" / "tiny")
    assert read_card(pull(str(card))).folder == tmp_path / "cache" / "cards" / "tiny"  # the same card: no warning
    rewrite_record(card, lambda record: record.update(version="9.0.0"))
    with pytest.warns(ZooWarning, match="comes with another card named 'tiny'.*write .*cache/cards/tiny"):
        pulled = pull(str(card))
    with pytest.warns(ZooWarning, match=f"several cards are named 'tiny': {shipped} is used.*{pulled}"):
        assert read_card("tiny").folder == shipped
    assert read_card(pulled).record.version == "9.0.0"


def test_links_and_files_that_are_not_a_cards_are_not_copied(card, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2")
    (card / "notes.txt").write_text("mine")
    (card / "picture.png").symlink_to(secret)
    (card / "folder").mkdir()
    pulled = pull(str(card))
    assert sorted(os.listdir(pulled)) == ["README.md", "curves.png", "model.safetensors", "recipe.yaml"]
    (card / "curves.png").unlink()
    (card / "curves.png").symlink_to(secret)
    for use in (lambda: pull(str(card)), lambda: push(str(card), "me/tiny")):
        with pytest.raises(CardError, match=r"curves\.png is a symbolic link|is not the file"):
            use()


def test_a_link_in_a_run_is_not_published(run_and_card, tmp_path):
    run = shutil.copytree(run_and_card[0], tmp_path / "run")
    (run / "curves.png").unlink()
    (run / "curves.png").symlink_to("/etc/hostname")
    with pytest.raises(CardError, match="is a symbolic link, which is not published"):
        publish(run, "x", folder=tmp_path / "cards", license="mit")


def test_names_cannot_leave_the_folder(card):
    for name in ("../x", "a/b", ".hidden", "", "x" * 101):
        change_record(card, lambda front, name=name: front["zoo"].update(name=name))
        with pytest.raises(CardError, match="does not fit the card schema"):
            read_card(card)


def test_the_prose_is_made_of_the_record_alone(card):
    record = CardRecord.model_validate(read_card(card).record.model_dump())
    assert render_prose(record) == (card / "README.md").read_text()


def test_names_are_escaped_in_tables_and_pages(tmp_path):
    import torch

    from zoo.methods.predictions import Segmentation
    from zoo.metrics.intervals import Measured
    from zoo.visualization.tables import Row, markdown_table

    text = "<script>alert(1)</script> | x"
    table = markdown_table([Row(text, "all", [0], {"accuracy": Measured(0.5, 0.4, 0.6, 10)})])
    assert "<script" not in table and table.count("|") == 3 * 5 + 1 and "\\|" in table
    page = Segmentation(torch.zeros(1, 16, 16), text, text).save(tmp_path).read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
