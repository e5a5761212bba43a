"""The pieces that a small model's tokenizer needs besides its words, so that it takes in any text of a user's own records."""

import re
import string
from collections import Counter
from collections.abc import Iterable

CONTINUATION = "##"
"""Prefix of a piece that continues a word, as in WordPiece."""
_WORD = re.compile(r"\w+|[^\w\s]")
_MOST_WORDS = 1000
_LEAST_COUNT = 3


def text_pieces(texts: Iterable[str]) -> list[str]:
    """Single characters, at the start of a word and within, and the frequent words of texts, in a fixed order.

    With these a WordPiece tokenizer splits whatever it has no word for, down to characters: numbers into digits too. Characters are
    those of ASCII, and all others in the texts; words are those that occur three times or more, at most 1,000 of them.
    """
    words = Counter(word for text in texts for word in _WORD.findall(text))
    seen = {character for word in words for character in word}
    characters = sorted(seen | set(string.ascii_letters + string.digits + string.punctuation))
    frequent = [word for word, count in words.most_common() if count >= _LEAST_COUNT and len(word) > 1]
    # Ties are broken by the alphabet, so that the order does not depend on that of the files.
    frequent = sorted(frequent, key=lambda word: (-words[word], word))[:_MOST_WORDS]
    continued = [f"{CONTINUATION}{character}" for character in characters if _WORD.fullmatch(character * 2)]
    return [*characters, *continued, *frequent]
