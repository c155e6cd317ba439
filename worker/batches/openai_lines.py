"""The input of a batch of the OpenAI dialect: the file is checked as a whole, a request's body when it is asked."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.batch_parameters import BatchEndpoint
from shared.chat_requests import ChatRequest, CompletionRequest
from shared.errors import CorruptDocument, EmptyDocument, InvalidRequest
from shared.json_lines import numbered_lines
from shared.request_lines import MOST_REQUESTS, RequestLine
from worker.batches.lines import invalid

MOST_PROBLEMS = 50  # that are reported of one file

_REQUESTS: dict[str, type[ChatRequest] | type[CompletionRequest]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
}


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file: a code, a sentence, and where."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class CheckedFile:
    """What a file holds. `model` is the one that all lines name, None if they name several."""

    num_lines: int
    model: str | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class OpenAILine:
    """A request with the id that comes back with its answer."""

    custom_id: str
    url: str
    body: dict[str, Any]

    @cached_property
    def request(self) -> ChatRequest | CompletionRequest:
        """The body by its endpoint's rules, of which a batch has two more. Raises `InvalidRequest`."""
        try:
            request = _REQUESTS[self.url].model_validate(self.body)
        except ValidationError as error:
            raise invalid(error) from error
        if request.stream:
            raise InvalidRequest("stream: answers of a batch are not streamed; leave stream out.", param="stream")
        if isinstance(request, CompletionRequest) and len(request.prompts) > 1:
            raise InvalidRequest("prompt: a line of a batch has one; give each its own line.", param="prompt")
        return request


def read_line(raw: bytes) -> OpenAILine:
    """Raises `InvalidRequest`, without a param if it is no JSON object."""
    try:
        line = RequestLine.model_validate_json(raw.removeprefix(codecs.BOM_UTF8))
    except ValidationError as error:
        raise invalid(error) from error
    return OpenAILine(line.custom_id, line.url, line.body)


def check_file(path: Path, endpoint: BatchEndpoint) -> CheckedFile:
    """Reads the file once, a line at a time, and collects what is wrong with it."""
    check = _FileCheck(endpoint)
    try:
        for number, line in numbered_lines(path):
            check.add(number, line)
            if len(check.problems) >= MOST_PROBLEMS:
                break
    except EmptyDocument as error:
        check.problems.append(Problem("empty_file", error.detail))
    except CorruptDocument as error:
        check.problems.append(Problem("invalid_jsonl_file", error.detail))
    model = next(iter(check.models)) if len(check.models) == 1 else None
    return CheckedFile(len(check.line_by_id), model, tuple(check.problems))


class _FileCheck:
    def __init__(self, endpoint: BatchEndpoint) -> None:
        self.endpoint = endpoint
        self.problems: list[Problem] = []
        self.line_by_id: dict[str, int] = {}
        self.models: set[str | None] = set()

    def add(self, number: int, line: str) -> None:
        try:
            request = read_line(line.encode())
        except InvalidRequest as error:
            code = "invalid_json_line" if error.param is None else "invalid_request"
            self.problems.append(Problem(code, error.detail, number, error.param))
        else:
            self.problems.extend(self._problems_of(number, request))
            self.models.add(_model_of(request.body))

    def _problems_of(self, number: int, request: OpenAILine) -> Iterator[Problem]:
        first = self.line_by_id.setdefault(request.custom_id, number)
        if first != number:
            said = f"custom_id is that of line {first}; each must be used once."
            yield Problem("duplicate_custom_id", said, number, "custom_id")
        if request.url != self.endpoint:
            yield Problem("mismatched_url", f"url must be the batch's endpoint, {self.endpoint}.", number, "url")
        if len(self.line_by_id) == MOST_REQUESTS + 1:
            said = f"The file has more than {MOST_REQUESTS} requests; split it into several batches."
            yield Problem("too_many_requests", said, number)


def _model_of(body: dict[str, Any]) -> str | None:
    model = body.get("model")
    return model if isinstance(model, str) and len(model) <= 512 and model.isprintable() else None
