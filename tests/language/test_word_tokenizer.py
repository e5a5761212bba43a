from zoo.data.traces.pieces import text_pieces
from zoo.language.word_tokenizer import extend_words, word_tokenizer


def test_a_word_tokenizer_restores_a_report():
    token_ids = {"<s>": 0, "<unk>": 1, "IMG": 2}
    words = "Findings The heart is normal No well defined mass [ ] , . : - 12 4".split()
    tokenizer = word_tokenizer(token_ids, words)
    text = "Findings: The heart is normal. No well-defined mass, [12, 4]."
    encoded = tokenizer.encode(text, add_special_tokens=False)
    assert min(encoded) > max(token_ids.values()) and tokenizer.decode(encoded) == text
    assert tokenizer.encode("unheard", add_special_tokens=False) == [tokenizer.unk_token_id]


def test_with_pieces_any_word_and_number_is_taken_in_and_known_ids_stay():
    special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    words = ["Left", "pleural", "effusion", ".", "12"]
    plain, pieces = word_tokenizer(special, words), text_pieces(["osteopenia"] * 3)
    extended = word_tokenizer(special, words, pieces)
    known = "Left pleural effusion 12."
    assert extended.encode(known) == plain.encode(known) and plain.unk_token_id in plain.encode("osteopenia 1379")
    text = "Left osteopenia, unheardof 1379 [4, 20]. 12"
    ids = extended.encode(text)
    assert extended.unk_token_id not in ids and max(ids) < len(special) + len(extend_words(words, pieces))
    assert extended.decode(ids) == text
    assert extend_words(["a", "b"], ["b", "c", "c"]) == ["a", "b", "c"]
