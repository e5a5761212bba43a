"""Public forms to records, which the readers of records read again."""

import csv
import json

import pytest

from tests.data.annotations.public_forms import FORMS
from zoo.config.recipe import RecipeError
from zoo.data.conversations.datasets import MedSegFiles
from zoo.data.conversations.records import QuestionError, read_conversations
from zoo.data.traces.records import check_images, read_records
from zoo.engine.conversion import accept, build_source, convert_to_conversations, convert_to_traces, write_lines
from zoo.errors import OutputExistsError


def source(form, folder):
    node = FORMS[form](folder)
    node.pop("name")
    return build_source(form, [f"{key}={json.dumps(value)}" for key, value in node.items()])


def questions(folder):
    file = folder / "questions.yaml"
    file.write_text("explicit: ['Where is the {name}?']\nimplicit: {polyp: ['What should be removed?']}\n")
    return file


def test_masks_become_records_that_a_recipe_reads(tmp_path):
    done = convert_to_conversations(
        source("mask_images", tmp_path / "in"), tmp_path / "out", questions=questions(tmp_path)
    )
    assert done.counts == {"train": 2, "val": 2, "test": 2} and done.review is None
    data = MedSegFiles(*(str(tmp_path / "out" / f"{split}.jsonl") for split in ("train", "val", "test")))
    (explicit, implicit) = data.conversations("train")[0].turns
    assert (explicit.question, implicit.question) == ("Where is the polyp?", "What should be removed?")
    assert data.metadata()["label_names"] == ["polyp"] and data.split("test")[0]["masks"].shape == (2, 24, 32)
    assert not json.loads((tmp_path / "out" / "train.jsonl").read_text().splitlines()[0])["image"].startswith("/")


def test_turns_are_accepted_rejected_and_corrected_in_a_table(tmp_path):
    out = tmp_path / "out"
    done = convert_to_conversations(
        source("mask_images", tmp_path / "in"), out, questions=questions(tmp_path), review=True
    )
    assert done.review == out / "review.csv" and not (out / "train.jsonl").exists()
    with done.review.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and {row["accept"] for row in rows} == {""}
    rows[0] |= {"accept": "yes", "question": "Find the growth."}
    rows[1] |= {"accept": "no"}
    rows[5] |= {"accept": "Yes"}
    with done.review.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert accept(out).counts == {"train": 1, "val": 1, "test": 0}
    (conversation,) = read_conversations(out / "train.jsonl")
    assert [turn.question for turn in conversation.turns] == ["Find the growth."] and len(
        conversation.turns[0].masks
    ) == 1
    with pytest.raises(OutputExistsError, match=r"train\.jsonl exists"):
        accept(out)
    for split in ("train", "val", "test"):
        (out / f"{split}.jsonl").unlink()
    assert accept(out, everything_else=True).counts == {"train": 2, "val": 2, "test": 2}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("accept", "maybe", "accept is 'maybe'; write yes or no"), ("answer", "It is there.", r"needs 1 \[SEG\]")],
)
def test_a_table_that_was_filled_in_wrongly_is_named_with_its_line(tmp_path, column, value, message):
    out = tmp_path / "out"
    convert_to_conversations(source("siim_acr", tmp_path / "in"), out, review=True)
    with (out / "review.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    rows[0] |= {"accept": "yes", column: value}
    with (out / "review.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(QuestionError, match=f"line 2: .*{message}"):
        accept(out)
    assert not (out / "train.jsonl").exists(), "nothing is written of half a table"


@pytest.mark.parametrize("form", ["chest_imagenome", "padchest_gr", "iu_xray"])
def test_reports_become_traces_with_crops(form, tmp_path):
    done = convert_to_traces(source(form, tmp_path / "in"), tmp_path / "out")
    assert sum(done.counts.values()) >= 5
    for split in done.counts:
        for record in read_records(tmp_path / "out" / f"{split}.jsonl"):
            check_images(record, tmp_path / "out" / f"{split}.jsonl")
            assert len(record.images) == 1 + len(record.steps)


def test_questions_of_gemex_become_traces(tmp_path):
    convert_to_traces(source("gemex_thinkvg", tmp_path / "in"), tmp_path / "out", prompts="question")
    (record, *_) = read_records(tmp_path / "out" / "train.jsonl")
    assert record.prompt == "What is abnormal? <image>" and record.steps[0].region == "right lower lung zone"


def test_nothing_is_overwritten(tmp_path):
    form = source("siim_acr", tmp_path / "in")
    convert_to_conversations(form, tmp_path / "out")
    for again in (convert_to_conversations, convert_to_traces):
        with pytest.raises(OutputExistsError, match=r"train\.jsonl exists; choose another folder"):
            again(form, tmp_path / "out")


def test_unknown_forms_and_arguments_are_named():
    with pytest.raises(RecipeError, match="did you mean siim_acr"):
        build_source("siim_acrr", [])
    with pytest.raises(RecipeError, match="annotations.table: is missing"):
        build_source("siim_acr", ["images=films"])


def test_lines_are_written_whole_or_not_at_all(tmp_path):
    def broken():
        yield {"a": 1}
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        write_lines(tmp_path / "a.jsonl", broken())
    assert list(tmp_path.iterdir()) == [] and write_lines(tmp_path / "a.jsonl", [{"a": "é"}]) == 1
