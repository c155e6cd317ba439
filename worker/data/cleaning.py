"""Bytes to text, and text to tidy text: one spelling of line ends, spaces and letters."""

from __future__ import annotations

import codecs
import re
import unicodedata

from shared.errors import CorruptDocument

_ENCODING_BY_BOM = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Control characters but tab and newline, soft hyphens, zero-width signs, and halves of UTF-16 pairs (JSON's \ud800).
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u2060\ufeff\ud800-\udfff]")

_MANY_LINE_ENDS = re.compile(r"\n{3,}")


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of `data`: by its byte order mark, else the `declared` encoding, UTF-8 or Windows-1252."""
    marked = [encoding for bom, encoding in _ENCODING_BY_BOM if data.startswith(bom)]
    for encoding in marked or [*([declared] if declared else []), "utf-8", "cp1252"]:
        try:
            text = data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
        if "\x00" in text:
            raise CorruptDocument("The text contains null bytes; export it again as UTF-8 text.")
        return text
    raise CorruptDocument("The text's encoding is not known; save it as UTF-8.")


def tidy(text: str) -> str:
    """Running text: composed letters, single spaces, at most one empty line in a row."""
    if _is_plain(text):
        return " ".join(text.split())
    lines = (" ".join(line.split()) for line in _plain(text).split("\n"))
    return _few_empty_lines("\n".join(lines))


def tidy_markup(text: str) -> str:
    """Text whose indentation means something: only line ends, letters and empty lines are made even."""
    if _is_plain(text):
        return text.rstrip()
    lines = (line.replace("\xa0", " ").rstrip() for line in _plain(text).split("\n"))
    return _few_empty_lines("\n".join(lines))


def _is_plain(text: str) -> bool:
    """One line of letters that are what they look like: most of a file of a million lines."""
    return text.isascii() and text.isprintable()


def _plain(text: str) -> str:
    with_newlines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0c", "\n\n").replace("\u2028", "\n")
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", _few_empty_lines(with_newlines)))


def _few_empty_lines(text: str) -> str:
    return _MANY_LINE_ENDS.sub("\n\n", text).strip("\n")
