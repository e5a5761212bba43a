"""A text tokenizer for small models: words, and where there are pieces, any word in pieces."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

_MAX_WORD = 1000
"""Characters of a word that is split into pieces."""


def extend_words(words: Sequence[str], pieces: Sequence[str]) -> list[str]:
    """The words, then the pieces that are none of them: earlier ids stay as they are."""
    known = set(words)
    return [*words, *(piece for piece in dict.fromkeys(pieces) if piece not in known)]


def word_tokenizer(
    token_ids: dict[str, int], words: Sequence[str], pieces: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """A tokenizer with a token for each word and each punctuation mark, with ids after those of ``token_ids``.

    Args:
        token_ids: of special tokens.
        words: in the order of their ids.
        pieces: of words that are not known, those within a word with "##" before them (WordPiece); their ids follow those of the
            words. Without any, an unknown word is ``<unk>``.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    first = max(token_ids.values()) + 1
    entries = extend_words(words, pieces)
    vocabulary = {**token_ids, **{entry: first + index for index, entry in enumerate(entries)}}
    model: models.WordPiece | models.WordLevel
    if pieces:
        model = models.WordPiece(vocabulary, unk_token="<unk>", max_input_chars_per_word=_MAX_WORD)
    else:
        model = models.WordLevel(vocabulary, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), behavior="removed", invert=True)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=True),  # a space before each word, none before . , ? !
            *(decoders.Replace(mark, mark.strip()) for mark in (" :", " ;", " ]")),
            decoders.Fuse(),
            *(decoders.Replace(mark, mark.strip()) for mark in ("[ ", " - ")),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", clean_up_tokenization_spaces=False)
