"""Tables: whatever is legal is read, and every other file is refused with its line."""

import gzip

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zoo.data.io.tables import TableError, TableSpec, canonical_split, read_table


def write(folder, text, name="table.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_rows_have_their_lines_and_no_space_around_values(tmp_path):
    path = write(tmp_path, 'path, label\n\na.png, mass \n"b\n.png",normal\n')
    assert list(read_table(path, ["path", "label"])) == [
        (3, {"path": "a.png", "label": "mass"}),
        (5, {"path": "b\n.png", "label": "normal"}),
    ]


@pytest.mark.parametrize(("encoding", "separator"), [("utf-8-sig", ","), ("cp1252", ";"), ("utf-16", "\t")])
def test_encodings_and_separators(tmp_path, encoding, separator):
    path = write(tmp_path, f"path{separator}label\né.png{separator}mass\n", encoding=encoding)
    spec = TableSpec(separator=separator, encoding="utf-8" if encoding == "utf-8-sig" else encoding)
    assert [row for _, row in spec.read(path, ["path"])] == [{"path": "é.png", "label": "mass"}]


def test_gzipped_tables_are_read(tmp_path):
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert list(read_table(path)) == [(2, {"a": "1", "b": "2"})]
    path.write_bytes(gzip.compress(b"a,b\n1,2\n" * 2000)[:-20])
    with pytest.raises(TableError, match="is not a readable table"):
        list(read_table(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\na.png,mass, large\n", "line 2: has 3 fields and the header 2; quote"),
        (b"path,label\na.png,mass\nb.png\n", "line 3: has 1 field"),
        (b"file,label\na.png,mass\n", "needs the columns path; it has file, label; name yours, as path_column=file"),
        (b"path;label\na.png;mass\n", "it has path;label; say what separates them, as separator=';'"),
        (b"path\tlabel\na.png\tmass\n", r"say what separates them, as separator='\\t'"),
        (b"path,path\na.png,mass\n", "has the column path more than once"),
        (b"", "needs the columns path; it has no header"),
        (b"path,label\na.png,m\xe9\n", "is not a readable table in utf-8-sig"),
    ],
)
def test_malformed_tables_are_refused_with_the_line(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(TableError, match=message):
        list(read_table(path, ["path"]))
    with pytest.raises(TableError, match="there is no such file"):
        list(read_table(tmp_path / "gone.csv"))


@pytest.mark.parametrize(
    ("name", "split"), [("validate", "val"), ("Training", "train"), ("TEST", "test"), ("fold 1", None)]
)
def test_splits_are_known_by_their_common_names(name, split):
    assert canonical_split(name) == split


def test_other_names_of_splits_are_arguments(tmp_path):
    spec = TableSpec(split_names={"0": "train", "1": "test"}, split_column="fold")
    assert spec.split_of({"fold": "1"}, tmp_path, 2) == "test" and spec.split_of({"fold": ""}, tmp_path, 2) is None
    with pytest.raises(TableError, match="line 2: split '2' is none of 0, 1"):
        spec.split_of({"fold": "2"}, tmp_path, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"separator": ", "}, "one character"),
        ({"encoding": "latin-99"}, "Python does not know"),
        ({"split_names": {"a": "dev"}}, "split_names has dev"),
    ],
)
def test_arguments_are_checked_without_a_file(arguments, message):
    with pytest.raises(TableError, match=message):
        TableSpec(**arguments)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), encoding=st.sampled_from(["utf-8", "utf-16", "cp1252"]))
def test_any_bytes_are_rows_or_an_error(tmp_path, content, encoding):
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    try:
        rows = list(read_table(path, encoding=encoding))
    except TableError:
        return
    assert all(isinstance(row, dict) for _, row in rows)


def test_every_bad_row_is_reported_and_the_others_read(tmp_path):
    path, messages = write(tmp_path, "a,b\n1,2\n1\n3,4\n1,2,3\n"), []
    assert [line for line, _ in read_table(path, report=messages.append)] == [2, 4]
    assert [message.partition(": ")[2].partition(":")[0] for message in messages] == ["line 3", "line 5"]
