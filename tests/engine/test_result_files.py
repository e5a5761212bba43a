"""Results as JSON Lines and CSV, written as they come."""

import csv
import json

from zoo.engine.result_files import ResultFile, ResultLines

FIRST = {"class": "a, b", "probabilities": {"a, b": 0.75, "c": 0.25}, "picture": "out/1.png"}
OTHER = {"class": "c", "probabilities": {"a, b": 0.5, "c": 0.5}, "picture": "out/2.png", "areas": [1, 2]}


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_csv_has_a_column_for_each_class_and_errors_wait_for_the_first_result():
    lines = ResultLines("csv")
    assert lines.add("bad.png", {"error": "no picture"}) == ""
    text = lines.add("1.png", FIRST)
    assert text.splitlines()[0] == 'image,error,class,"probabilities.a, b",probabilities.c,picture,other'
    text += lines.add("2.png", OTHER) + lines.add("worse.png", {"error": "gone"}) + lines.end()
    rows = rows_of(text)
    assert [row["image"] for row in rows] == ["bad.png", "1.png", "2.png", "worse.png"]
    assert [row["error"] for row in rows] == ["no picture", "", "", "gone"]
    assert rows[1]["class"] == "a, b" and float(rows[2]["probabilities.c"]) == 0.5
    assert json.loads(rows[2]["other"]) == {"areas": "[1, 2]"} and rows[1]["other"] == ""


def test_csv_of_errors_alone_is_written_at_the_end():
    lines = ResultLines("csv")
    lines.add("bad.png", {"error": "no picture"})
    assert rows_of(lines.end()) == [{"image": "bad.png", "error": "no picture", "other": ""}]


def test_json_lines_are_whole_objects():
    assert json.loads(ResultLines("jsonl").add("2.png", OTHER)) == {"image": "2.png", **OTHER}


def test_a_file_is_continued_and_forgets_what_is_predicted_again(tmp_path):
    for format in ("jsonl", "csv"):
        for path, content in (("1.png", FIRST), ("bad.png", {"error": "no picture"}), ("2.png", OTHER)):
            file = ResultFile(tmp_path / "out", format)
            file.add(path, content)
            file.end()
        assert [path.name for path in file.written()] == ["1.png", "2.png"], "what could not be read has no picture"
        file.remove({"1.png"})
        again = ResultFile(tmp_path / "out", format)
        again.add("1.png", FIRST)
        text = file.path.read_text()
        rows = rows_of(text) if format == "csv" else [json.loads(line) for line in text.splitlines()]
        assert [row["image"] for row in rows] == ["bad.png", "2.png", "1.png"]
    assert not list((tmp_path / "out").glob("*.partial")) and ResultFile(tmp_path / "none").written() == []
