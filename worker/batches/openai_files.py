"""The files that a batch of the OpenAI dialect ends with: what was answered, and what was not, each on its own line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from shared.errors import BatchExpired, error_by_code
from shared.storage import Storage, disk_errors

_EXPIRED = {
    "code": BatchExpired.code,
    "message": "This request could not be executed before the completion window expired.",
}
_BAD_REQUESTS = (413, 415, 422)  # OpenAI says 400 to all of them


@dataclass(frozen=True)
class StagedFiles:
    """Whole files on their way; None where there is no line to write."""

    answers: Path | None
    errors: Path | None


@contextmanager
def staged_files(
    storage: Storage, job_id: str, answered: Path, expired: Iterator[tuple[int, str]]
) -> Iterator[StagedFiles]:
    """Splits the output `answered`, and adds the lines that came too late, by number and id. What is not taken away is
    removed at the end. Raises `DiskFull`."""
    answers, errors = storage.stage(), storage.stage()
    try:
        with disk_errors(), answers.open("w", encoding="ascii") as good, errors.open("w", encoding="ascii") as bad:
            with answered.open("rb") as lines:
                for raw in lines:
                    line = json.loads(raw)
                    _write(good if line["error"] is None else bad, _request_id(job_id, line["line"]), line)
            for number, custom_id in expired:
                _put(bad, _request_id(job_id, number), custom_id, None, _EXPIRED)
        yield StagedFiles(*(path if path.stat().st_size else None for path in (answers, errors)))
    finally:
        answers.unlink(missing_ok=True)
        errors.unlink(missing_ok=True)


def _write(file: TextIO, request_id: str, line: dict[str, Any]) -> None:
    error = line["error"]
    status, body = (200, line["body"]) if error is None else _refusal(error)
    _put(file, request_id, line["custom_id"], {"status_code": status, "request_id": request_id, "body": body}, None)


def _put(
    file: TextIO, request_id: str, custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None
) -> None:
    line = {"id": f"batch_req_{request_id}", "custom_id": custom_id, "response": response, "error": error}
    file.write(f"{json.dumps(line)}\n")  # in ASCII: other line ends of Unicode would look like the line's own


def _refusal(error: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """The status and the body with which the endpoint itself would have refused the request."""
    known = error_by_code(error["code"]).status
    status = 400 if known in _BAD_REQUESTS else known
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    said = {"message": error["detail"], "type": kind, "param": error.get("param"), "code": error["code"]}
    return status, {"error": said}


def _request_id(job_id: str, number: int) -> str:
    """The same in every attempt to write the files."""
    return hashlib.sha256(f"{job_id}.{number}".encode()).hexdigest()[:24]
