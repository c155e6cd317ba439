from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import CorruptDocument
from shared.request_lines import MOST_REQUESTS, check_request_lines

REQUEST = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "demo", "messages": []}}


def _write(path: Path, *records: Any) -> Path:
    path.write_text("\n".join(map(json.dumps, records)))
    return path


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([REQUEST, REQUEST], "Line 2: custom_id is that of line 1"),
        ([{**REQUEST, "custom_id": 7}], "Line 1: custom_id: "),
        ([{**REQUEST, "custom_id": ""}], "Line 1: custom_id: "),
        ([{**REQUEST, "method": "GET"}], "Line 1: method: "),
        ([REQUEST, {**REQUEST, "url": "/v1/embeddings"}], "Line 2: url: "),
        ([{**REQUEST, "body": "{}"}], "Line 1: body: "),
        ([{"custom_id": "1"}], "Line 1: method: "),
        ([[]], "Line 1 is not a JSON object"),
    ],
)
def test_the_first_wrong_request_is_named_with_its_field(tmp_path: Path, records: list[Any], said: str) -> None:
    with pytest.raises(CorruptDocument, match=said):
        check_request_lines(_write(tmp_path / "batch.jsonl", *records))


def test_a_batch_has_so_many_requests_at_most(tmp_path: Path) -> None:
    requests = [{**REQUEST, "custom_id": str(number)} for number in range(MOST_REQUESTS + 1)]
    check_request_lines(_write(tmp_path / "fits.jsonl", *requests[:-1]))
    with pytest.raises(CorruptDocument, match="more than 50000 requests"):
        check_request_lines(_write(tmp_path / "too-many.jsonl", *requests))
