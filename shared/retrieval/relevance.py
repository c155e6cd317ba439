"""Whether a text is about a question at all: BM25's scores say which chunk is better, not whether it is good."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"\w+")
_STEM_CHARACTERS = 5  # words that begin alike are taken for one: founded, founder
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a about am an and any are as at be been being between but by can could did do does for from had has have he "
        "her his how i if in is it its many may me might much must my no not of on one or our she should so tell than "
        "that the their them there they this those to us was we were what when where which who whom whose why will "
        "with would you your",
    )
)


def share_of_words(query: str, text: str) -> float:
    """The share of the question's words, common ones aside, that the text holds (0 to 1)."""
    asked = _stems(query)
    return len(asked & _stems(text)) / len(asked) if asked else 0.0


def _stems(text: str) -> set[str]:
    plain = unicodedata.normalize("NFKD", text.lower())
    words = _WORD.findall("".join(sign for sign in plain if not unicodedata.combining(sign)))
    return {word[:_STEM_CHARACTERS] for word in words if word not in _STOP_WORDS}
