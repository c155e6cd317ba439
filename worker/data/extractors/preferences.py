"""Lines that compare two answers: OpenAI's (`input`, `preferred_output`, `non_preferred_output`) and the field's
(`prompt`, `chosen`, `rejected`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import CorruptDocument
from worker.base_models.formats import Message, Preference
from worker.data.extractors.messages import text_of, turns_of


@dataclass(frozen=True)
class _Names:
    prompt: str
    chosen: str
    rejected: str

    @property
    def answers(self) -> tuple[str, str]:
        return self.chosen, self.rejected


_DIALECTS = (_Names("input", "preferred_output", "non_preferred_output"), _Names("prompt", "chosen", "rejected"))


def compares(record: Mapping[str, Any], *, is_other: bool) -> bool:
    """Whether the line is a preference. One of the two answers tells, unless the line `is_other` without them: then
    both must be there."""
    enough = all if is_other else any
    return any(enough(name in record for name in names.answers) for names in _DIALECTS)


def preference_of(record: Mapping[str, Any], number: int) -> Preference:
    """The answers and the turns before them, which stand in a field of their own or are repeated before each answer
    (as in `trl-lib/ultrafeedback_binarized`). Raises `CorruptDocument`, naming line and field."""
    names = next(one for one in _DIALECTS if any(name in record for name in one.answers))
    for name, beside in (names.answers, names.answers[::-1]):
        if name not in record:
            raise CorruptDocument(f"Line {number}: '{name}' is missing beside '{beside}'.")
    before, chosen = _answer(record, names.chosen, number)
    before_rejected, rejected = _answer(record, names.rejected, number)
    prompt = _prompt(record, names.prompt, number) if names.prompt in record else before
    if not prompt:
        raise CorruptDocument(f"Line {number}: '{names.prompt}' is missing beside '{names.chosen}'.")
    if any(turns and turns != prompt for turns in (before, before_rejected)):
        raise CorruptDocument(f"Line {number}: '{names.chosen}' and '{names.rejected}' must answer the same prompt.")
    if prompt[-1]["role"] == "assistant":
        raise CorruptDocument(f"Line {number}: the prompt must end before the assistant's turn.")
    return Preference(prompt=prompt, chosen=chosen, rejected=rejected)


def _prompt(record: Mapping[str, Any], name: str, number: int) -> list[Message]:
    given = record[name]
    if isinstance(given, str):
        return [Message(role="user", content=text_of(record, name, number))]
    if name == "prompt":
        return turns_of(given, name, number)
    if not isinstance(given, dict) or "messages" not in given:
        raise CorruptDocument(f"Line {number}: '{name}' must be an object with 'messages'.")
    return turns_of(given["messages"], f"{name}.messages", number)


def _answer(record: Mapping[str, Any], name: str, number: int) -> tuple[list[Message], str]:
    """(turns before it, the answer) of a text, or of messages that end in the assistant's."""
    if isinstance(record[name], str):
        return [], text_of(record, name, number)
    *before, last = turns_of(record[name], name, number)
    if last["role"] != "assistant":
        raise CorruptDocument(f"Line {number}: '{name}' must end in an assistant message.")
    return before, last["content"]
