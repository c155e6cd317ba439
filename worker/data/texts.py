"""What extraction finds in a document: sections of running text, conversations, or preferences between answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from worker.base_models.formats import Message, Preference

EXTRACTOR_VERSION = 2  # raise it when the same file would give another text; kept texts are then read anew


@dataclass(frozen=True)
class Section:
    """Text under one heading. `heading` is the path of headings that lead here (`Leave > Sick leave`), or empty;
    `page` counts from 1. A record (a line of jsonl, a row of csv) stands alone, never joined to its neighbours."""

    text: str
    heading: str = ""
    page: int | None = None
    is_record: bool = False


@dataclass(frozen=True)
class ExtractedText:
    """A document's text, in its order. `is_markdown`: the sections keep their markup."""

    sections: tuple[Section, ...] = ()
    conversations: tuple[tuple[Message, ...], ...] = ()
    is_markdown: bool = False
    preferences: tuple[Preference, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.sections or self.conversations or self.preferences)

    def to_json(self) -> str:
        return json.dumps(
            {
                "sections": [[one.text, one.heading, one.page, one.is_record] for one in self.sections],
                "conversations": self.conversations,
                "is_markdown": self.is_markdown,
                "preferences": self.preferences,
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, payload: str | bytes) -> ExtractedText:
        """The inverse of `to_json`; raises ValueError, KeyError or TypeError for anything else."""
        values: dict[str, Any] = json.loads(payload)
        return cls(
            tuple(Section(*one) for one in values["sections"]),
            tuple(tuple(one) for one in values["conversations"]),
            bool(values["is_markdown"]),
            tuple(values["preferences"]),
        )


@dataclass
class SectionBuilder:
    """Puts paragraphs under the headings above them."""

    _titles: list[str] = field(default_factory=list)
    _path: list[tuple[int, str]] = field(default_factory=list)
    _paragraphs: list[str] = field(default_factory=list)
    _sections: list[Section] = field(default_factory=list)
    _page: int | None = None
    _is_in_list: bool = False

    def heading(self, level: int, title: str) -> None:
        """Begins a section; headings of the same or a deeper level end with it."""
        title = " ".join(title.split())
        if not title:
            return
        self._close()
        self._titles.append(title)
        self._path = [*(one for one in self._path if one[0] < level), (level, title)]

    def paragraph(self, text: str, page: int | None = None) -> None:
        """A block of text, set apart by an empty line."""
        if not text.strip():
            return
        if not self._paragraphs:
            self._page = page
        self._paragraphs.append(text.strip("\n").rstrip())
        self._is_in_list = False

    def line(self, text: str) -> None:
        """An item of a list or a row of a table: follows the one before without an empty line."""
        if not text.strip():
            return
        if self._is_in_list and self._paragraphs:
            self._paragraphs[-1] += "\n" + text.rstrip()
        else:
            self.paragraph(text)
        self._is_in_list = True

    def end_list(self) -> None:
        self._is_in_list = False

    def sections(self) -> tuple[Section, ...]:
        """All sections with text. A document of nothing but headings gives them as its text."""
        self._close()
        if not self._sections and self._titles:
            return (Section("\n\n".join(self._titles)),)
        return tuple(self._sections)

    def _close(self) -> None:
        if self._paragraphs:
            heading = " > ".join(title for _, title in self._path)
            self._sections.append(Section("\n\n".join(self._paragraphs), heading, self._page))
        self._paragraphs, self._is_in_list = [], False
