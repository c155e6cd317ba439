"""When two answers are the same, and how much they share: exact match and token F1 by the rules of SQuAD's script.

Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", 2016: case, punctuation, articles and
spaces do not matter. Beyond ASCII, where that script is silent, by the rules of MLQA's (Lewis et al., 2020): all
punctuation of Unicode falls away, and in scripts that put no spaces between words each character is a token.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter

# Scripts without spaces between words: Thai and Lao, Myanmar, Khmer, kana, Chinese characters and their extensions.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED_LETTER = re.compile(f"([{_UNSPACED}])")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = frozenset(string.punctuation)  # some of it are symbols by Unicode, as $ and +


def normalised(text: str) -> str:
    """Lower case, without punctuation and articles, with single spaces: in SQuAD's own order.

    An answer that consists of nothing else (`A` of several choices, `+`) keeps what makes it different from others.
    """
    lower = unicodedata.normalize("NFC", text).lower()
    bare = "".join(one for one in lower if not _is_punctuation(one))
    return _spaced(_ARTICLES.sub(" ", bare)) or _spaced(bare) or _spaced(lower)


def is_exact_match(answer: str, wanted: str) -> bool:
    """Whether both say the same, word by word."""
    return normalised(answer) == normalised(wanted)


def tokens_of(text: str) -> list[str]:
    """The words of the normalised text; in scripts without spaces, its characters."""
    return split_unspaced(normalised(text)).split()


def token_f1(answer: str, wanted: str) -> float:
    """The harmonic mean of the share of the answer's tokens that are wanted and the share of the wanted ones that are
    there; 1.0 where both are empty, as SQuAD 2.0 has it."""
    given, sought = Counter(tokens_of(answer)), Counter(tokens_of(wanted))
    if not given or not sought:
        return float(given == sought)
    num_common = sum((given & sought).values())
    return 2.0 * num_common / (given.total() + sought.total())


def split_unspaced(text: str) -> str:
    """The text with spaces around each character of a script that puts none between words."""
    return _UNSPACED_LETTER.sub(r" \1 ", text)


def is_unspaced(text: str) -> bool:
    """Whether most of the text is in a script without spaces between words."""
    num_unspaced = len(_UNSPACED_LETTER.findall(text))
    return 2 * num_unspaced > sum(map(str.isalnum, text))


def _is_punctuation(character: str) -> bool:
    return character in _ASCII_PUNCTUATION or unicodedata.category(character).startswith("P")


def _spaced(text: str) -> str:
    return " ".join(text.split())
