"""The parts of a JSON line, checked: texts and messages; what is wrong is named by line and field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.errors import CorruptDocument
from worker.base_models.formats import Message
from worker.data.cleaning import tidy_markup

ROLES = ("system", "user", "assistant")


def text_of(record: Mapping[str, Any], name: str, number: int) -> str:
    """The tidy text in field `name` of line `number`."""
    value = record[name]
    if not isinstance(value, str) or not value.strip():
        raise CorruptDocument(f"Line {number}: '{name}' must be a text that is not empty.")
    return tidy_markup(value)


def turns_of(messages: Any, name: str, number: int) -> list[Message]:
    """The messages in field `name` of line `number`, at least one."""
    if not isinstance(messages, list) or not messages:
        raise CorruptDocument(f"Line {number}: '{name}' must be a list of at least one message.")
    return [_message(one, f"Line {number}: {name}[{index}]") for index, one in enumerate(messages)]


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
