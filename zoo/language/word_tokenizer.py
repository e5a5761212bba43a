"""A word-level text tokenizer for small models."""

from transformers import PreTrainedTokenizerFast


def word_tokenizer(token_ids: dict[str, int], words: list[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: a token for each word and each punctuation mark, with ids after those of ``token_ids``."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    first = max(token_ids.values()) + 1
    vocabulary = {**token_ids, **{word: first + index for index, word in enumerate(words)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
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
