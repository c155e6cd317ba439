"""JSON lines: questions with answers, conversations, preferences between two answers, or texts, one a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.errors import CorruptDocument
from worker.base_models.formats import Message, Preference
from worker.data.cleaning import decode, tidy
from worker.data.extractors.messages import text_of, turns_of
from worker.data.extractors.preferences import compares, preference_of
from worker.data.texts import ExtractedText, Section

PAIRS = (
    ("question", "answer"),
    ("prompt", "completion"),
    ("instruction", "response"),
    ("instruction", "output"),
    ("input", "output"),
)


def extract_jsonl(path: Path) -> ExtractedText:
    """Every line is checked; the first that is wrong is named in a `CorruptDocument`."""
    sections: list[Section] = []
    conversations: list[tuple[Message, ...]] = []
    preferences: list[Preference] = []
    for number, line in enumerate(decode(path.read_bytes()).replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        record = _parsed(line, number)
        if compares(record, is_other=_is_complete(record)):
            preferences.append(preference_of(record, number))
        elif "text" in record and not _is_conversation(record):
            sections.append(Section(tidy(text_of(record, "text", number)), is_record=True))
        else:
            conversations.append(_conversation(record, number))
    return ExtractedText(tuple(sections), tuple(conversations), preferences=tuple(preferences))


def exchange(question: str, answer: str, context: str = "") -> tuple[Message, ...]:
    """A question and its answer as a conversation; `context` (Alpaca's `input`) follows the question."""
    asked = f"{question}\n{context}" if context else question
    return (Message(role="user", content=asked), Message(role="assistant", content=answer))


def _parsed(line: str, number: int) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise CorruptDocument(f"Line {number} is not valid JSON; every line must be one JSON object.") from None
    if not isinstance(record, dict):
        raise CorruptDocument(f"Line {number} is not a JSON object; every line must be one, such as {{…}}.")
    return record


def _is_complete(record: Mapping[str, Any]) -> bool:
    """Whether the line is a text, a conversation, or a question with its answer."""
    return "text" in record or "messages" in record or any(all(name in record for name in pair) for pair in PAIRS)


def _is_conversation(record: Mapping[str, Any]) -> bool:
    return "messages" in record or any(name in record for pair in PAIRS for name in pair)


def _conversation(record: Mapping[str, Any], number: int) -> tuple[Message, ...]:
    if "messages" in record:
        return _messages(record["messages"], number)
    asked, answered = _pair_of(record, number)
    context = text_of(record, "input", number) if asked == "instruction" and record.get("input") else ""
    return exchange(text_of(record, asked, number), text_of(record, answered, number), context)


def _pair_of(record: Mapping[str, Any], number: int) -> tuple[str, str]:
    for pair in PAIRS:
        if all(name in record for name in pair):
            return pair
    for asked, answered in PAIRS:
        for name, other in ((asked, answered), (answered, asked)):
            if name in record:
                raise CorruptDocument(f"Line {number}: '{other}' is missing beside '{name}'.")
    raise CorruptDocument(
        f"Line {number} needs 'messages', 'question' and 'answer', 'prompt' and 'completion', 'prompt', 'chosen' and "
        "'rejected', or 'text'."
    )


def _messages(messages: Any, number: int) -> tuple[Message, ...]:
    turns = tuple(turns_of(messages, "messages", number))
    if all(turn["role"] != "assistant" for turn in turns):
        raise CorruptDocument(f"Line {number}: 'messages' has no assistant message, so there is nothing to learn.")
    return turns
