"""JSON lines: questions with answers, conversations, or texts, one a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.errors import CorruptDocument
from worker.base_models.formats import Message
from worker.data.cleaning import decode, tidy, tidy_markup
from worker.data.texts import ExtractedText, Section

ROLES = ("system", "user", "assistant")
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
    for number, line in enumerate(decode(path.read_bytes()).replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        record = _parsed(line, number)
        if "text" in record and not _is_conversation(record):
            sections.append(Section(tidy(_text(record, "text", number)), is_record=True))
        else:
            conversations.append(_conversation(record, number))
    return ExtractedText(tuple(sections), tuple(conversations))


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


def _is_conversation(record: Mapping[str, Any]) -> bool:
    return "messages" in record or any(name in record for pair in PAIRS for name in pair)


def _conversation(record: Mapping[str, Any], number: int) -> tuple[Message, ...]:
    if "messages" in record:
        return _messages(record["messages"], number)
    asked, answered = _pair_of(record, number)
    context = _text(record, "input", number) if asked == "instruction" and record.get("input") else ""
    return exchange(_text(record, asked, number), _text(record, answered, number), context)


def _pair_of(record: Mapping[str, Any], number: int) -> tuple[str, str]:
    for pair in PAIRS:
        if all(name in record for name in pair):
            return pair
    for asked, answered in PAIRS:
        for name, other in ((asked, answered), (answered, asked)):
            if name in record:
                raise CorruptDocument(f"Line {number}: '{other}' is missing beside '{name}'.")
    raise CorruptDocument(
        f"Line {number} needs 'messages', 'question' and 'answer', 'prompt' and 'completion', or 'text'."
    )


def _messages(messages: Any, number: int) -> tuple[Message, ...]:
    if not isinstance(messages, list) or not messages:
        raise CorruptDocument(f"Line {number}: 'messages' must be a list of at least one message.")
    turns = tuple(_message(one, f"Line {number}: messages[{index}]") for index, one in enumerate(messages))
    if all(turn["role"] != "assistant" for turn in turns):
        raise CorruptDocument(f"Line {number}: 'messages' has no assistant message, so there is nothing to learn.")
    return turns


def _message(message: Any, place: str) -> Message:
    if not isinstance(message, dict):
        raise CorruptDocument(f"{place} must be an object with 'role' and 'content'.")
    if message.get("role") not in ROLES:
        raise CorruptDocument(f"{place}.role must be one of {', '.join(ROLES)}.")
    content = message.get("content")
    if not isinstance(content, str) or not content.strip():
        raise CorruptDocument(f"{place}.content must be a text that is not empty.")
    turn = Message(role=message["role"], content=tidy_markup(content))
    if "weight" in message:
        turn["weight"] = _weight(message, place)
    return turn


def _weight(message: Mapping[str, Any], place: str) -> int:
    if message["role"] != "assistant":
        raise CorruptDocument(f"{place}.weight is allowed on assistant messages only.")
    if type(message["weight"]) is not int or message["weight"] not in (0, 1):
        raise CorruptDocument(f"{place}.weight must be 0 or 1.")
    return int(message["weight"])


def _text(record: Mapping[str, Any], name: str, number: int) -> str:
    value = record[name]
    if not isinstance(value, str) or not value.strip():
        raise CorruptDocument(f"Line {number}: '{name}' must be a text that is not empty.")
    return tidy_markup(value)
