from zoo.data.traces.pieces import text_pieces


def test_characters_and_frequent_words_in_a_fixed_order():
    texts = ["Osteopenia of 137 µm.", "Osteopenia, osteopenia."] * 2 + ["Osteopenia"]
    pieces = text_pieces(texts)
    assert len(pieces) == len(set(pieces)) and "Osteopenia" in pieces and "osteopenia" not in pieces, "twice only"
    assert {"µ", "##µ", "7", "##7", ".", "A", "##z", "_"} <= set(pieces) and "##." not in pieces
    assert pieces == text_pieces(texts[::-1])


def test_any_ascii_is_covered_without_a_text():
    assert {"a", "##a", "Z", "9", "##9", "%", "["} <= set(text_pieces([]))
