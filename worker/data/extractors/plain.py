"""Plain text and Markdown."""

from __future__ import annotations

import re
from pathlib import Path

from worker.data.cleaning import decode, tidy, tidy_markup
from worker.data.texts import ExtractedText, Section, SectionBuilder

_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n(?:---|\.\.\.)(?:\n|\Z)", re.DOTALL)
# Bounded, and without what would begin another: else a row of beginnings takes quadratic time.
_IMAGE = re.compile(r"!\[([^\[\]\n]{0,1000})\]\([^)\n]{0,2000}\)")


def extract_txt(path: Path) -> ExtractedText:
    """One section: plain text has no headings that one could rely on."""
    text = tidy(decode(path.read_bytes()))
    return ExtractedText((Section(text),) if text else ())


def extract_md(path: Path) -> ExtractedText:
    """A section for each heading; front matter, comments and the addresses of images are left out."""
    text = _FRONT_MATTER.sub("", tidy_markup(decode(path.read_bytes())))
    text = _IMAGE.sub(r"\1", _without_comments(text))
    builder = SectionBuilder()
    body: list[str] = []
    for line in _marked_lines(text.split("\n")):
        if isinstance(line, str):
            body.append(line)
            continue
        builder.paragraph("\n".join(body))
        builder.heading(*line)
        body = []
    builder.paragraph("\n".join(body))
    return ExtractedText(builder.sections(), is_markdown=True)


def _without_comments(text: str) -> str:
    """In one pass, where a regular expression would look for the end from each beginning."""
    kept, start = [], 0
    while (begin := text.find("<!--", start)) >= 0 and (end := text.find("-->", begin + 4)) >= 0:
        kept.append(text[start:begin])
        start = end + 3
    return "".join([*kept, text[start:]])


def _marked_lines(lines: list[str]) -> list[str | tuple[int, str]]:
    """The lines, with headings as (level, title); `#` within a fenced block is no heading."""
    marked: list[str | tuple[int, str]] = []
    fence = ""
    for line in lines:
        opened = _FENCE.match(line)
        if opened and (not fence or opened[1].startswith(fence)):
            fence = "" if fence else opened[1]
        heading = None if fence else _HEADING.match(line)
        above = marked[-1] if marked else ""
        if heading:
            marked.append((len(heading[1]), heading[2]))
        elif not fence and isinstance(above, str) and _can_be_title(above) and (under := _UNDERLINE.match(line)):
            marked[-1] = (1 if under[1].startswith("=") else 2, above)
        else:
            marked.append(line)
    return marked


def _can_be_title(line: str) -> bool:
    return bool(line.strip()) and not re.match(r"\s*([-*+>|]|\d+[.)]\s|```|~~~)", line)
