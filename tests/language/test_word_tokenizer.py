from zoo.language.word_tokenizer import word_tokenizer


def test_a_word_tokenizer_restores_a_report():
    token_ids = {"<s>": 0, "<unk>": 1, "IMG": 2}
    words = "Findings The heart is normal No well defined mass [ ] , . : - 12 4".split()
    tokenizer = word_tokenizer(token_ids, words)
    text = "Findings: The heart is normal. No well-defined mass, [12, 4]."
    encoded = tokenizer.encode(text, add_special_tokens=False)
    assert min(encoded) > max(token_ids.values()) and tokenizer.decode(encoded) == text
    assert tokenizer.encode("unheard", add_special_tokens=False) == [tokenizer.unk_token_id]
