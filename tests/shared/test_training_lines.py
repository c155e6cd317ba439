from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import DocumentError
from shared.json_lines import LONGEST_LINE
from shared.training_lines import Message, TrainingLines, check_training_lines

CHAT = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Odile.", "weight": 1}]}
PREFERENCE = {
    "input": {"messages": [{"role": "user", "content": "Who?"}]},
    "preferred_output": [{"role": "assistant", "content": "Odile."}],
    "non_preferred_output": [{"role": "assistant", "content": "Nobody."}],
}


def lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lines.jsonl"


@pytest.mark.parametrize(
    "record",
    [
        CHAT,
        PREFERENCE,
        {"question": "Who?", "answer": "Odile."},
        {"prompt": "Who?", "completion": "Odile."},
        {"prompt": "Who?", "chosen": "Odile.", "rejected": "Nobody."},
        {"text": "Odile is the director."},
        {"messages": [{"role": "developer", "content": "Be brief."}, *CHAT["messages"]]},
    ],
)
def test_every_form_of_line_is_taken(file: Path, record: dict[str, Any]) -> None:
    file.write_bytes(b"\xef\xbb\xbf\r\n" + lines(record).replace(b"\n", b"\r\n"))
    check_training_lines(file)


def test_a_developer_speaks_as_the_system() -> None:
    record = {"messages": [{"role": "developer", "content": "Be brief."}, *CHAT["messages"]]}
    found = TrainingLines().read(json.dumps(record), 1)
    assert isinstance(found, tuple)
    assert found[0] == Message(role="system", content="Be brief.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lines(CHAT) + b'{"messages": [', "Line 2 is not valid JSON"),
        (lines(CHAT, [CHAT]), "Line 2 is not a JSON object"),
        (lines(CHAT) + b"\n\xff\n", "Line 3 is not UTF-8"),
        (lines(CHAT).decode().encode("utf-16"), "Line 1 is not UTF-8"),
        (lines(CHAT, {"messages": [{"role": "robot", "content": "a"}]}), r"Line 2: messages\[0\].role"),
        (lines({"messages": [{"role": ["user"], "content": "a"}]}), r"Line 1: messages\[0\].role"),
        (lines({"messages": [{"role": "user", "content": "Who?"}]}), "Line 1: 'messages' has no assistant message"),
        (lines({"messages": [{"role": "user", "content": "Who?", "weight": 1}]}), r"Line 1: messages\[0\].weight"),
        (lines({"messages": [{"role": "assistant", "content": None}]}), r"Line 1: messages\[0\].content"),
        (lines(CHAT, {**PREFERENCE, "input": {}}), "Line 2: 'input' must be an object with 'messages'"),
        (lines({**PREFERENCE, "preferred_output": []}), "Line 1: 'preferred_output' must be a list"),
        (lines({"question": "Who?"}), "Line 1: 'answer' is missing"),
        (b"[" * 100_000, "Line 1 is not valid JSON"),
        (b'{"text": ' + b"9" * 5_000 + b"}", "Line 1 is not valid JSON"),
        (b" " * 5_000 + b"\n", "The file holds no line"),
        (lines(CHAT) + b'{"text": "' + b"x" * LONGEST_LINE + b'"}', "Line 2 is longer than"),
    ],
    ids=range(16),
)
def test_the_first_wrong_line_is_named_with_its_field(file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    with pytest.raises(DocumentError, match=said):
        check_training_lines(file)


def test_a_file_of_any_size_is_checked_in_little_memory(file: Path) -> None:
    import tracemalloc

    with file.open("wb") as out:
        for _ in range(5_000):
            out.write(lines({"text": "x" * 2_000}))
    tracemalloc.start()
    check_training_lines(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000 < file.stat().st_size
