"""The sentences of a document that say something by themselves: no headings, lists of contents, tables or code."""

from __future__ import annotations

import re
from collections.abc import Iterator

from worker.data.texts import ExtractedText, Section

SHORTEST, LONGEST = 40, 300  # characters
FEWEST_WORDS = 8
LONGEST_PARAGRAPH = 20_000  # characters; the rest of a longer one is not looked at
_END = re.compile(r"(?<=[.!?])\s+(?=[\"“A-Z])")
_MARKUP = re.compile(r"[*_]{1,3}(?=\S)|(?<=\S)[*_]{1,3}|`")
_CODE = re.compile(r"[{}<>|\\=\[\]]|::|\(\)|https?:|_\w+_|\.{4,}|(?:\. ){4,}")
_STANDS_ALONE = re.compile(r"^[A-Z\d\"“]")
_LEANS_ON_THE_ONE_BEFORE = re.compile(
    r"^[\"“]?(?:it|its|they|their|he|his|she|her|this|that|these|those|such|both|here|there|then|so|but|and|or|also"
    r"|however|otherwise|instead|therefore|thus)\b",
    re.IGNORECASE,
)
_LIST = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s")
_CONTENTS = re.compile(r"\s\d{1,4}$")


def sentences_of(text: ExtractedText) -> Iterator[str]:
    """In the text's order, each on one line."""
    for section in text.sections:
        if not section.is_record:
            yield from _of_section(section, is_markdown=text.is_markdown)


def _of_section(section: Section, *, is_markdown: bool) -> Iterator[str]:
    lines = _without_code(section.text) if is_markdown else section.text
    for paragraph in lines.split("\n\n"):
        if _LIST.match(paragraph) or paragraph.lstrip().startswith(("#", "|", ">")) or paragraph.startswith("    "):
            continue
        joined = " ".join(paragraph[:LONGEST_PARAGRAPH].split())
        plain = _MARKUP.sub("", joined) if is_markdown else joined
        yield from (sentence for sentence in _END.split(plain) if _is_good(sentence))


def _without_code(text: str) -> str:
    """Markdown without what stands between fences; one that is never closed reaches to the end."""
    parts = re.split(r"^\s*(?:```|~~~).*$", text, flags=re.MULTILINE)
    return "\n\n".join(parts[::2])


def _is_good(sentence: str) -> bool:
    if not SHORTEST <= len(sentence) <= LONGEST or not sentence.endswith((".", "!")):
        return False
    letters = sum(one.isalpha() or one == " " for one in sentence)
    return (
        len(sentence.split()) >= FEWEST_WORDS
        and letters >= 0.75 * len(sentence)
        and _STANDS_ALONE.match(sentence) is not None
        and not _LEANS_ON_THE_ONE_BEFORE.match(sentence)
        and not _CODE.search(sentence)
        and not _CONTENTS.search(sentence.rstrip("."))
    )
