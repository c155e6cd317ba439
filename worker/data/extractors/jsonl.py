"""JSON lines: questions with answers, conversations, preferences between two answers, or texts, one a line."""

from __future__ import annotations

from pathlib import Path

from shared.training_lines import Message, Preference, TrainingLines
from worker.data.cleaning import decode, tidy, tidy_markup
from worker.data.texts import ExtractedText, Section


def extract_jsonl(path: Path) -> ExtractedText:
    """Every line is checked; the first that is wrong is named in a `CorruptDocument`."""
    sections: list[Section] = []
    conversations: list[tuple[Message, ...]] = []
    preferences: list[Preference] = []
    read = TrainingLines(tidy_markup).read
    for number, line in enumerate(decode(path.read_bytes()).replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        found = read(line, number)
        if isinstance(found, str):
            sections.append(Section(tidy(found), is_record=True))
        elif isinstance(found, tuple):
            conversations.append(found)
        else:
            preferences.append(found)
    return ExtractedText(tuple(sections), tuple(conversations), preferences=tuple(preferences))
