from zoo.data.io.json_lines import read_lines


def test_lines_are_numbered_and_blank_ones_skipped(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"a": 1}\n\n   \n{"b": 2}')
    assert list(read_lines(path, 100)) == [(1, b'{"a": 1}\n'), (4, b'{"b": 2}')]


def test_a_long_line_is_cut_after_the_limit(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text("x" * 50)
    number, line = next(read_lines(path, 20))
    assert (number, len(line)) == (1, 21)


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}', encoding="utf-8-sig")
    assert [line for _, line in read_lines(path, 100)] == [b'{"a": 1}\n', b'{"b": 2}']
