import json

import pytest

from zoo.data.annotations.base import AnnotationError
from zoo.data.annotations.gemex_thinkvg import GemexThinkVg


def test_question_answer_and_the_boxes_of_the_reasoning(build):
    (image, *_) = build("gemex_thinkvg").read()
    assert image.questions == (("What is abnormal?", "Pleural effusion"),) and image.report == "Pleural effusion"
    (region,) = image.regions
    assert region.name == "right lower lung zone" and region.boxes == ((4.0, 6.0, 20.0, 18.0),)
    assert region.sentence == "First, look at the right lower lung zone." and image.patient == "p10000030"


def test_a_response_without_an_answer_is_named(build, tmp_path):
    source = build("gemex_thinkvg")
    file = tmp_path / "gemex_thinkvg" / "train.jsonl"
    file.write_text(file.read_text().replace("<answer>", "<reply>", 1))
    with pytest.raises(AnnotationError, match="row 1: the response has no <answer>"):
        source.read()
    assert build("gemex_thinkvg", question_types=["open_ended_questions"]).read()


def test_parquet_is_read_where_pyarrow_is_installed(build, tmp_path):
    build("gemex_thinkvg")
    folder = tmp_path / "gemex_thinkvg"
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    try:
        import pandas

        pandas.DataFrame(rows).to_parquet(folder / "train.parquet")
    except ImportError:
        (folder / "train.parquet").write_bytes(b"PAR1")
        with pytest.raises(AnnotationError, match="parquet files need the package pyarrow"):
            GemexThinkVg(str(folder / "train.parquet"), str(folder / "files")).read()
    else:
        assert len(GemexThinkVg(str(folder / "train.parquet"), str(folder / "files")).read()) == len(rows)
