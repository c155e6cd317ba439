from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import InvalidRequest
from shared.request_lines import MOST_REQUESTS
from tests.batches.files import chat_line, completion_line, write_input
from worker.batches.openai_lines import MOST_PROBLEMS, check_file, read_line


def problems(tmp_path: Path, *lines: Any) -> list[tuple[str, int | None, str | None]]:
    found = check_file(write_input(tmp_path / "in.jsonl", *lines), "/v1/chat/completions")
    return [(one.code, one.line, one.param) for one in found.problems]


def test_every_line_that_breaks_the_rules_is_named(tmp_path: Path) -> None:
    good = chat_line("a", "Hello")
    assert problems(
        tmp_path,
        good,
        "{broken",
        {**good, "custom_id": "b", "method": "GET"},
        good,
        completion_line("c", "Once"),
        {key: value for key, value in good.items() if key != "body"},
        "[]",
        json.dumps(chat_line("half a character", "?")).replace("?", r"\ud800"),
    ) == [
        ("invalid_json_line", 2, None),
        ("invalid_request", 3, "method"),
        ("duplicate_custom_id", 4, "custom_id"),
        ("mismatched_url", 5, "url"),
        ("invalid_request", 6, "body"),
        ("invalid_json_line", 7, None),
        ("invalid_json_line", 8, None),
    ]


def test_a_file_without_lines_or_of_something_else_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path) == [("empty_file", None, None)]
    assert problems(tmp_path, "", "  ") == [("empty_file", None, None)]
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00\n")
    assert check_file(binary, "/v1/completions").problems[0].code == "invalid_jsonl_file"
    assert len(problems(tmp_path, *["prose"] * 200)) == MOST_PROBLEMS


def test_a_batch_holds_so_many_requests(tmp_path: Path) -> None:
    lines = [f'{{"custom_id": "{number}", "method": "POST", "url": "/v1/chat/completions", "body": {{}}}}'
             for number in range(MOST_REQUESTS + 2)]  # fmt: skip
    assert problems(tmp_path, *lines[:-2]) == []
    assert problems(tmp_path, *lines) == [("too_many_requests", MOST_REQUESTS + 1, None)]


def test_the_batch_s_model_is_the_one_that_all_lines_name(tmp_path: Path) -> None:
    path = write_input(tmp_path / "in.jsonl", chat_line("a", "x"), chat_line("b", "x"))
    assert check_file(path, "/v1/chat/completions").model == "demo"
    write_input(path, chat_line("a", "x"), chat_line("b", "x", model="other"))
    assert check_file(path, "/v1/chat/completions").model is None


@pytest.mark.parametrize(
    ("line", "param"),
    [
        (chat_line("a", "x", stream=True), "stream"),
        (chat_line("a", "x", temperature=3), "temperature"),
        (chat_line("a", "x", surprise=1), "surprise"),
        (completion_line("a", ["x", "y"]), "prompt"),
        (completion_line("a", None), "prompt"),
    ],
)
def test_a_body_is_held_to_its_endpoint_s_rules(line: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _ = read_line(json.dumps(line).encode()).request
    assert refused.value.param == param
