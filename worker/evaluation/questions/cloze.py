"""Cloze questions by rule: a sentence of the document with one blank, and what stood there as the answer.

Only sentences that can be understood by themselves are asked, and only what is worth knowing is left out: dates, years,
amounts, times, and names. What a sentence says twice is never asked for: its other half would tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shared.question_files import Question
from worker.data.texts import ExtractedText
from worker.evaluation.questions.sentences import sentences_of

BLANK = "____"
ASKED = "Fill in the blank: {sentence}"
_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_NUMBER = r"\d[\d.,]*(?<![.,])"
_WORD = r"[A-Z][A-Za-z'’-]*[a-z]"
# The first that is found in a sentence is asked for: what is most surely a fact comes first.
_SALIENT = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b\d{{1,2}} {_MONTH}(?: \d{{4}})?\b",
        rf"\b{_MONTH} \d{{1,2}}(?:, \d{{4}})?\b",
        r"\b(?:1[5-9]|20)\d\d\b",
        r"\b\d{1,2}:\d\d\b",
        rf"[$€£] ?{_NUMBER}",
        rf"\b{_NUMBER}(?: ?%| [a-z]{{3,}}\b)",
        rf"(?<=[a-z,;:] ){_WORD}(?: (?:of |the |and )?{_WORD})+",
        rf"(?<=[a-z,;:] ){_WORD}\b",
    )
)
_TOKENS = re.compile(r"\w+")


def cloze_questions(text: ExtractedText) -> list[Question]:
    """One for each sentence that has something to ask for, in the text's order; each sentence once."""
    found = {sentence: question for sentence in sentences_of(text) if (question := _question(sentence))}
    return list(found.values())


def _question(sentence: str) -> Question | None:
    for answer, start in _candidates(sentence):
        blanked = sentence[:start] + BLANK + sentence[start + len(answer) :]
        asked = ASKED.format(sentence=blanked)
        if not reveals(asked, answer):
            return Question(asked, answer)
    return None


def _candidates(sentence: str) -> Iterator[tuple[str, int]]:
    for pattern in _SALIENT:
        for match in pattern.finditer(sentence):
            yield match.group(), match.start()


def reveals(asked: str, answer: str) -> bool:
    """Whether what is asked holds the answer, or one of its words of more than three letters, or one of its numbers."""
    rest = asked.casefold()
    words = set(_TOKENS.findall(rest))
    telling = {one for one in _TOKENS.findall(answer.casefold()) if len(one) > 3 or one.isdigit()}
    return answer.casefold() in rest or not telling.isdisjoint(words)
