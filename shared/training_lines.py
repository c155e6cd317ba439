"""A JSON line to learn from, checked: a question with its answer, a conversation, a preference between two answers
(`input`, `preferred_output`, `non_preferred_output`, or `prompt`, `chosen`, `rejected`), or a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from shared.errors import CorruptDocument
from shared.json_lines import json_object, numbered_lines

PAIRS = (
    ("question", "answer"),
    ("prompt", "completion"),
    ("instruction", "response"),
    ("instruction", "output"),
    ("input", "output"),
)
ROLES = ("system", "developer", "user", "assistant")


class Message(TypedDict):
    """One turn; an assistant's turn with `weight` 0 is context and not learned."""

    role: str
    content: str
    weight: NotRequired[int]


class Preference(TypedDict):
    """Two answers to the same turns, the first of them preferred."""

    prompt: list[Message]
    chosen: str
    rejected: str


TrainingLine = str | tuple[Message, ...] | Preference  # a text, a conversation, or a preference


@dataclass(frozen=True)
class _Names:
    prompt: str
    chosen: str
    rejected: str

    @property
    def answers(self) -> tuple[str, str]:
        return self.chosen, self.rejected


_DIALECTS = (_Names("input", "preferred_output", "non_preferred_output"), _Names("prompt", "chosen", "rejected"))
_ANSWERS = frozenset(name for names in _DIALECTS for name in names.answers)
_OF_CONVERSATIONS = frozenset(("messages", *(name for pair in PAIRS for name in pair)))


def check_training_lines(path: Path) -> None:
    """Reads every line of the file, one at a time; raises for the first that is wrong, naming line and field."""
    read = TrainingLines().read
    for number, line in numbered_lines(path):
        read(line, number)


def exchange(question: str, answer: str, context: str = "") -> tuple[Message, ...]:
    """A question and its answer as a conversation; `context` (Alpaca's `input`) follows the question."""
    asked = f"{question}\n{context}" if context else question
    return (Message(role="user", content=asked), Message(role="assistant", content=answer))


class TrainingLines:
    """Reads lines; every text in them goes through `tidy`. All methods raise `CorruptDocument`."""

    def __init__(self, tidy: Callable[[str], str] = lambda text: text) -> None:
        self._tidy = tidy

    def read(self, line: str, number: int) -> TrainingLine:
        """What line `number` says."""
        record = json_object(line, number)
        if _compares(record):
            return self._preference(record, number)
        if "text" in record and not _is_conversation(record):
            return self._text(record, "text", number)
        return self._conversation(record, number)

    def _conversation(self, record: Mapping[str, Any], number: int) -> tuple[Message, ...]:
        if "messages" in record:
            return self._messages(record["messages"], number)
        asked, answered = _pair_of(record, number)
        context = self._text(record, "input", number) if asked == "instruction" and record.get("input") else ""
        return exchange(self._text(record, asked, number), self._text(record, answered, number), context)

    def _messages(self, messages: Any, number: int) -> tuple[Message, ...]:
        turns = tuple(self._turns(messages, "messages", number))
        if all(turn["role"] != "assistant" for turn in turns):
            raise CorruptDocument(f"Line {number}: 'messages' has no assistant message, so there is nothing to learn.")
        return turns

    def _preference(self, record: Mapping[str, Any], number: int) -> Preference:
        """The answers and the turns before them, which stand in a field of their own or are repeated before each
        answer (as in `trl-lib/ultrafeedback_binarized`)."""
        names = next(one for one in _DIALECTS if any(name in record for name in one.answers))
        for name, beside in (names.answers, names.answers[::-1]):
            if name not in record:
                raise CorruptDocument(f"Line {number}: '{name}' is missing beside '{beside}'.")
        before, chosen = self._answer(record, names.chosen, number)
        before_rejected, rejected = self._answer(record, names.rejected, number)
        prompt = self._prompt(record, names.prompt, number) if names.prompt in record else before
        if not prompt:
            raise CorruptDocument(f"Line {number}: '{names.prompt}' is missing beside '{names.chosen}'.")
        if any(turns and turns != prompt for turns in (before, before_rejected)):
            raise CorruptDocument(
                f"Line {number}: '{names.chosen}' and '{names.rejected}' must answer the same prompt."
            )
        if prompt[-1]["role"] == "assistant":
            raise CorruptDocument(f"Line {number}: the prompt must end before the assistant's turn.")
        return Preference(prompt=prompt, chosen=chosen, rejected=rejected)

    def _prompt(self, record: Mapping[str, Any], name: str, number: int) -> list[Message]:
        given = record[name]
        if isinstance(given, str):
            return [Message(role="user", content=self._text(record, name, number))]
        if name == "prompt":
            return self._turns(given, name, number)
        if not isinstance(given, dict) or "messages" not in given:
            raise CorruptDocument(f"Line {number}: '{name}' must be an object with 'messages'.")
        return self._turns(given["messages"], f"{name}.messages", number)

    def _answer(self, record: Mapping[str, Any], name: str, number: int) -> tuple[list[Message], str]:
        """(turns before it, the answer) of a text, or of messages that end in the assistant's."""
        if isinstance(record[name], str):
            return [], self._text(record, name, number)
        *before, last = self._turns(record[name], name, number)
        if last["role"] != "assistant":
            raise CorruptDocument(f"Line {number}: '{name}' must end in an assistant message.")
        return before, last["content"]

    def _text(self, record: Mapping[str, Any], name: str, number: int) -> str:
        value = record[name]
        if not isinstance(value, str) or not value.strip():
            raise CorruptDocument(f"Line {number}: '{name}' must be a text that is not empty.")
        return self._tidy(value)

    def _turns(self, messages: Any, name: str, number: int) -> list[Message]:
        """The messages in field `name`, at least one."""
        if not isinstance(messages, list) or not messages:
            raise CorruptDocument(f"Line {number}: '{name}' must be a list of at least one message.")
        return [self._message(one, f"Line {number}: {name}[{index}]") for index, one in enumerate(messages)]

    def _message(self, message: Any, place: str) -> Message:
        if not isinstance(message, dict):
            raise CorruptDocument(f"{place} must be an object with 'role' and 'content'.")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise CorruptDocument(f"{place}.role must be one of {', '.join(ROLES)}.")
        if not isinstance(content, str) or not content.strip():
            raise CorruptDocument(f"{place}.content must be a text that is not empty.")
        # No chat template knows OpenAI's newer word for the system's role.
        turn = Message(role="system" if role == "developer" else role, content=self._tidy(content))
        if "weight" in message:
            turn["weight"] = _weight(message, place)
        return turn


def _compares(record: Mapping[str, Any]) -> bool:
    """Whether the line is a preference. One of the two answers tells, unless the line is complete without them: then
    both must be there."""
    if _ANSWERS.isdisjoint(record):  # nearly every line; a file may have a million
        return False
    enough = all if _is_complete(record) else any
    return any(enough(name in record for name in names.answers) for names in _DIALECTS)


def _is_complete(record: Mapping[str, Any]) -> bool:
    """Whether the line is a text, a conversation, or a question with its answer."""
    return "text" in record or "messages" in record or any(all(name in record for name in pair) for pair in PAIRS)


def _is_conversation(record: Mapping[str, Any]) -> bool:
    return not _OF_CONVERSATIONS.isdisjoint(record)


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


def _weight(message: Mapping[str, Any], place: str) -> int:
    if message["role"] != "assistant":
        raise CorruptDocument(f"{place}.weight is allowed on assistant messages only.")
    if type(message["weight"]) is not int or message["weight"] not in (0, 1):
        raise CorruptDocument(f"{place}.weight must be 0 or 1.")
    return int(message["weight"])
