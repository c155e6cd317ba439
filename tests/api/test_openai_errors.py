"""Errors as the official client raises them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import openai
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field

from api.errors import add_error_handlers, error_responses, openai_error
from api.main import create_app
from api.middleware import BodyLimit, RequestId
from shared.errors import IllegalTransition, ModelNotFound, QueueFull, TrainingError, error_by_code
from shared.settings import Settings


class _Request(BaseModel):
    model: str
    temperature: float = Field(1.0, ge=0.0, le=2.0)


@pytest.fixture
def failing() -> Iterator[TestClient]:
    """An application whose model `code` answers with the error of that code."""
    app = FastAPI()
    add_error_handlers(app)
    app.add_middleware(BodyLimit, default=10_000, by_path={})
    app.add_middleware(RequestId)
    app.state.num_requests = 0

    @app.get("/v1/models/{code}")
    def fail(code: str) -> None:
        app.state.num_requests += 1
        if code == "surprise":
            raise RuntimeError("/secret/path")
        raise error_by_code(code)(param="model")

    @app.post("/v1/chat/completions")
    def complete(request: _Request) -> None: ...

    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def _client(transport: TestClient, max_retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(
        base_url="http://testserver/v1",
        api_key="unused",
        _strict_response_validation=True,
        max_retries=max_retries,
        http_client=transport,
    )


@pytest.mark.parametrize(
    ("code", "raised", "type_"),
    [
        ("invalid_request", openai.BadRequestError, "invalid_request_error"),
        ("document_too_large", openai.BadRequestError, "invalid_request_error"),
        ("document_unsupported", openai.BadRequestError, "invalid_request_error"),
        ("illegal_transition", openai.BadRequestError, "invalid_request_error"),
        ("model_not_found", openai.NotFoundError, "invalid_request_error"),
        ("version_in_use", openai.ConflictError, "invalid_request_error"),
        ("rate_limit_exceeded", openai.RateLimitError, "rate_limit_error"),
        ("queue_full", openai.RateLimitError, "rate_limit_error"),
        ("no_inference_worker", openai.InternalServerError, "server_error"),
        ("answer_timeout", openai.InternalServerError, "server_error"),
        ("disk_full", openai.InternalServerError, "server_error"),
    ],
)
def test_each_error_is_raised_as_the_class_that_openai_would_raise(
    failing: TestClient, code: str, raised: type[openai.APIStatusError], type_: str
) -> None:
    with pytest.raises(raised) as caught:
        _client(failing).models.retrieve(code)
    error = caught.value
    assert (error.code, error.param, error.type) == (code, "model", type_)
    assert isinstance(error.body, dict)
    assert error.body["message"] == error_by_code(code).cure
    assert str(error.request_id).startswith("req-")


def test_a_surprise_is_a_server_error_that_says_nothing(failing: TestClient) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        _client(failing).models.retrieve("surprise")
    assert (caught.value.code, caught.value.type) == ("internal_error", "server_error")
    assert "secret" not in str(caught.value)
    assert str(caught.value.request_id).startswith("req-")


@pytest.mark.parametrize("code", ["queue_full", "rate_limit_exceeded", "unavailable", "no_inference_worker"])
def test_where_a_retry_helps_the_client_is_told_when(failing: TestClient, code: str) -> None:
    answer = failing.get(f"/v1/models/{code}")
    assert 1 <= int(answer.headers["retry-after"]) <= 10
    assert "x-should-retry" not in answer.headers


@pytest.mark.parametrize("code", ["illegal_transition", "version_in_use", "adapter_broken", "disk_full"])
def test_what_cannot_get_better_is_not_sent_again(failing: TestClient, code: str) -> None:
    with pytest.raises(openai.APIStatusError):
        _client(failing, max_retries=2).models.retrieve(code)
    assert cast(FastAPI, failing.app).state.num_requests == 1


def test_a_wrong_value_is_a_bad_request_that_names_its_field(failing: TestClient) -> None:
    client = _client(failing)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="demo", messages=[], temperature=3)
    error = caught.value
    assert (error.code, error.param, error.type) == ("invalid_request", "temperature", "invalid_request_error")
    assert "temperature: " in error.message


def test_a_body_that_is_too_large_or_no_json_is_a_bad_request(failing: TestClient) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        _client(failing).chat.completions.create(model="x" * 20_000, messages=[])
    assert caught.value.code == "request_entity_too_large"
    broken = failing.post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nowhere", "/v1/nowhere/at/all"])
def test_every_path_of_the_dialect_answers_in_it(client: TestClient, path: str) -> None:
    answer = client.get(path)
    error = {"message": "Not Found.", "type": "invalid_request_error", "param": None, "code": "not_found"}
    assert (answer.status_code, answer.json()) == (404, {"error": error})
    assert answer.headers["x-request-id"]


def test_a_wrong_method_answers_in_the_dialect(failing: TestClient) -> None:
    answer = failing.delete("/v1/chat/completions")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/v10", "/v1x/files"])
def test_a_path_that_only_looks_like_the_dialect_is_ours(client: TestClient, path: str) -> None:
    assert client.get(path).json() == {"error": "not_found", "detail": "Not Found."}


def test_our_own_dialect_keeps_its_statuses(client: TestClient) -> None:
    answer = client.post("/fine-tuning/setup", json={"lora_rank": 0})
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request")
    assert "x-should-retry" not in answer.headers


def test_a_stream_that_has_begun_can_end_with_the_same_error() -> None:
    assert openai_error(ModelNotFound("There is no such model.", param="model")) == {
        "error": {
            "message": "There is no such model.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
    kinds = [openai_error(error)["error"]["type"] for error in (QueueFull(), TrainingError(), IllegalTransition())]
    assert kinds == ["rate_limit_error", "server_error", "invalid_request_error"]


def test_the_description_of_the_api_names_the_dialect_s_own_errors(settings: Settings) -> None:
    def shape(path: str) -> str:
        return str(error_responses(path)["4XX"]["model"].__name__)

    assert [shape(path) for path in ("/v1/files", "/v1", "/documents", "")] == [
        "OpenAIErrorAnswer",
        "OpenAIErrorAnswer",
        "ErrorAnswer",
        "ErrorAnswer",
    ]
    for path, operations in create_app(settings).openapi()["paths"].items():
        for operation in operations.values():
            schema = operation["responses"]["4XX"]["content"]["application/json"]["schema"]["$ref"]
            assert schema.endswith(f"/{shape(path)}")
