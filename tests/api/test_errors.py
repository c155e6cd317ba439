from __future__ import annotations

import logging

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient

from api.dependencies import WriteSession
from shared.models import Worker
from tests.api.test_access import concrete


def test_every_answer_carries_a_request_id(client: TestClient) -> None:
    ids = {client.get(path).headers["x-request-id"] for path in ("/", "/nowhere", "/documents?limit=0")}
    assert len(ids) == 3


def test_an_unknown_path_and_a_wrong_method_are_errors_of_the_same_shape(client: TestClient) -> None:
    assert client.get("/nowhere").json() == {"error": "not_found", "detail": "Not Found."}
    wrong = client.put("/documents")
    assert (wrong.status_code, wrong.json()["error"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, POST"
    assert client.post("/fine-tuning/adapters/a/versions/1").headers["allow"] == "DELETE"
    assert client.post("/ui/index.html").headers["allow"] == "GET, HEAD"


def test_errors_under_v1_are_in_the_dialect_of_openai(client: TestClient) -> None:
    error = client.get("/v1/nowhere").json()["error"]
    assert error == {"message": "Not Found.", "type": "invalid_request_error", "param": None, "code": "not_found"}


def test_a_surprise_shows_nothing_to_the_client_and_everything_to_the_log(
    app: FastAPI, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    app.state.scopes["GET", "/surprise"] = "read"

    @app.get("/surprise")
    def surprise() -> None:
        raise RuntimeError("/secret/path")

    with caplog.at_level(logging.ERROR):
        answer = client.get("/surprise")
    assert (answer.status_code, answer.json()["error"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in caplog.text
    assert "/secret/path" in caplog.text


def test_a_validation_error_names_the_field_and_never_the_value(client: TestClient) -> None:
    answer = client.post("/fine-tuning/setup", json={"lora_rank": "hunter2", "num_epochs": 0})
    assert "lora_rank: " in answer.json()["detail"]
    assert "num_epochs: " in answer.json()["detail"]
    assert "hunter2" not in answer.text


def test_what_a_body_lacks_is_said_once(client: TestClient) -> None:
    """Parts of an endpoint that both ask for the body have it validated twice."""
    chat = client.post("/v1/chat/completions", json={"messages": [], "model": "demo"})
    assert chat.json()["error"]["message"] == "messages: must hold at least one message."
    asked = client.post("/query", json={"backend": "hunter2"})
    assert asked.json()["detail"].count("query: ") == asked.json()["detail"].count("backend: ") == 1


def test_no_body_is_validated_twice(app: FastAPI) -> None:
    def bodies(dependant: Dependant) -> list[str]:
        inner = [name for one in dependant.dependencies for name in bodies(one)]
        return [one.name for one in dependant.body_params] + inner

    routes = [one for one in iter_route_contexts(app.routes) if isinstance(one.original_route, APIRoute)]
    twice = {str(one.path) for one in routes if len(bodies(one.original_route.dependant)) > 1}
    assert len(routes) > 80
    assert twice == set()


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"beta": 1.0}, "method: Field 'type' is missing, which says of what kind it is"),
        ({"type": "hunter2"}, "method: Field 'type' should be one of 'supervised', 'dpo'"),
    ],
)
def test_a_wrong_kind_is_named_with_those_that_there_are(
    client: TestClient, method: dict[str, object], said: str
) -> None:
    assert said in client.post("/fine-tuning/train", json={"method": method}).json()["detail"]


def test_a_list_is_not_looked_through_from_the_character_0_on(client: TestClient) -> None:
    document = client.get("/openapi.json").json()["paths"]
    lists = [path for path, one in document.items() if "after" in str(one.get("get", {}).get("parameters"))]
    for path in lists:
        refused = client.get(concrete(path), params={"after": "a\0b"})
        assert refused.status_code in (400, 422), path
    assert len(lists) > 10


def test_a_large_body_is_refused_wherever_it_is_sent(client: TestClient) -> None:
    answer = client.post("/fine-tuning/setup", content=b" " * 1_100_000, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (413, "request_entity_too_large")


def test_a_session_is_committed_before_the_answer_leaves_and_rolled_back_on_error(
    app: FastAPI, client: TestClient
) -> None:
    app.state.scopes["POST", "/workers/{worker_id}"] = "train"

    @app.post("/workers/{worker_id}")
    def write(worker_id: str, session: WriteSession) -> dict[str, str]:
        session.add(Worker(id=worker_id, kind="inference", details={}))
        session.flush()
        if worker_id == "bad":
            raise RuntimeError
        return {}

    assert client.post("/workers/bad").status_code == 500
    assert client.get("/fine-tuning/status").json()["inference_workers"] == 0
    assert client.post("/workers/good").status_code == 200
    assert client.get("/fine-tuning/status").json()["inference_workers"] == 1


def test_the_openapi_document_gives_every_error_one_shape(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    shapes = {
        operation["responses"][status]["content"]["application/json"]["schema"]["$ref"]
        for name, path in document["paths"].items()
        for operation in path.values()
        for status in ("4XX", "5XX")
        if not name.startswith("/v1/")
    }
    assert shapes == {"#/components/schemas/ErrorAnswer"}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "", "localhost.evil.example"])
def test_a_host_that_is_not_ours_is_refused(client: TestClient, host: str) -> None:
    found = client.get("/documents", headers={"Host": host})
    assert (found.status_code, found.json()["error"]) == (400, "forbidden_site")


def test_a_page_of_another_site_changes_nothing(client: TestClient) -> None:
    found = client.post("/fine-tuning/setup", headers={"Origin": "https://evil.example"})
    assert (found.status_code, found.json()["error"]) == (403, "forbidden_site")
    assert client.get("/fine-tuning/jobs").json()["data"] == []
    own = client.post("/fine-tuning/setup", headers={"Origin": "http://localhost"})
    assert own.json()["error"] == "no_documents"


@pytest.mark.parametrize("path", ["/fine-tuning/jobs/a%00b", "/documents/%ED%A0%80", "/fine-tuning/adapters/a%00"])
def test_an_id_that_no_row_can_have_is_a_client_s_error(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (404, 422)


def test_numbers_that_are_not_finite_are_refused(client: TestClient) -> None:
    body = '{"max_grad_norm": 1e400}'
    found = client.post("/fine-tuning/setup", content=body, headers={"Content-Type": "application/json"})
    assert (found.status_code, found.json()["error"]) == (422, "invalid_request")
