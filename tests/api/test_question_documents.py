from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.conftest import Upload

LINE = b'{"question": "In which year?", "answer": "1987"}\n'


@pytest.fixture
def questions(client: TestClient) -> str:
    """The id of a document of questions."""
    return str(_sent(client, LINE, "asked.jsonl")["data"][0]["id"])


def _sent(client: TestClient, content: bytes, name: str, purpose: str = "questions") -> Any:
    # The purpose follows the files, as a browser's form may have it.
    files = [("files", (name, content)), ("purpose", (None, purpose))]
    return client.post("/documents", files=files).json()


def test_the_same_bytes_may_be_learned_from_and_asked(client: TestClient) -> None:
    learned = _sent(client, LINE, "a.jsonl", "documents")["data"][0]
    asked, again = (_sent(client, LINE, name)["data"][0] for name in ("b.jsonl", "c.jsonl"))
    assert (learned["purpose"], asked["purpose"]) == ("documents", "questions")
    assert learned["id"] != asked["id"] == again["id"]
    assert [one["is_new"] for one in (learned, asked, again)] == [True, True, False]
    listed = client.get("/documents", params={"purpose": "questions"}).json()["data"]
    assert [one["id"] for one in listed] == [asked["id"]]


def test_deleted_questions_that_are_uploaded_again_keep_their_id(client: TestClient, questions: str) -> None:
    client.delete(f"/documents/{questions}")
    again = _sent(client, LINE, "asked.jsonl")["data"][0]
    assert (again["id"], again["is_new"]) == (questions, True)
    assert client.get(f"/documents/{questions}/content").content == LINE


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (LINE + b'{"question": "And then?"}', "a.jsonl", "a.jsonl: Line 2: 'answer' must be a text"),
        (b"question,reply\na,b\n", "a.csv", "The first line must name the columns"),
        (b"Who? Odile.", "a.txt", "Questions come as jsonl or csv"),
    ],
)
def test_a_file_that_holds_no_questions_is_refused_with_its_line(
    client: TestClient, content: bytes, name: str, said: str
) -> None:
    assert said in _sent(client, content, name)["detail"]
    assert client.get("/documents").json()["data"] == []


def test_a_bad_file_of_questions_does_not_disturb_its_neighbours(client: TestClient) -> None:
    files: Any = [("purpose", (None, "questions")), ("files", ("a.jsonl", b"{}")), ("files", ("b.jsonl", LINE))]
    found = client.post("/documents", files=files).json()["data"]
    assert [(one["status"], one["purpose"]) for one in found] == [("rejected", "questions"), ("uploaded", "questions")]


def test_an_unknown_purpose_is_refused(client: TestClient) -> None:
    answer = _sent(client, LINE, "a.jsonl", "exam")
    assert (answer["error"], answer["param"]) == ("invalid_request", "purpose")


def test_questions_are_never_learned_from(client: TestClient, upload: Upload, questions: str) -> None:
    assert client.post("/fine-tuning/setup", json={}).json()["error"] == "no_documents"
    learned = upload()
    refused = client.post("/fine-tuning/setup", json={"document_ids": [learned, questions]})
    assert (refused.status_code, refused.json()["param"]) == (422, "document_ids")
    assert "validation_document_ids" in refused.json()["detail"]
    refused = client.post("/v1/fine_tuning/jobs", json={"model": "demo", "training_file": questions})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "training_file")


def test_questions_may_be_what_a_training_is_measured_on(client: TestClient, upload: Upload, questions: str) -> None:
    learned = upload()
    body = {"document_ids": [learned], "validation_document_ids": [questions]}
    assert client.post("/fine-tuning/setup", json=body).status_code == 202
    job = {"model": "demo", "training_file": learned, "validation_file": questions}
    assert client.post("/v1/fine_tuning/jobs", json=job).status_code == 200


def test_the_other_dialect_knows_the_same_questions(client: TestClient, questions: str) -> None:
    def sent(content: bytes) -> Any:
        files = {"file": ("asked.jsonl", content)}
        return client.post("/v1/files", files=files, data={"purpose": "questions"}).json()

    assert (sent(LINE)["id"], sent(LINE)["purpose"]) == (questions, "questions")
    assert "Line 1: 'question'" in sent(b'{"prompt": "a"}')["error"]["message"]
