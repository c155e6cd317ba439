"""Questions to the documents and to the adapter; the index is written by the real indexer, in this process."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from shared.database import Database
from shared.messages import Question, Refusal, Reply
from shared.settings import Settings
from shared.storage import Storage
from tests.api.conftest import beat, publish
from tests.api.fake_worker import FakeWorker, answer, echo, refuse
from tests.databases import migrate
from tests.retrieval.indexing import FakeEndpoint, fake_endpoint, index_all
from worker.data.text_cache import TextCache
from worker.data.texts import ExtractedText, Section

LEAVE = "Employees have 27 days of annual leave."
TRAVEL = "Hotels may cost 130 euros a night."
ASKED = {"query": "How many days of annual leave do employees have?"}
KEY = "sk-very-secret"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    unset = {"openai_base_url": None, "openai_api_key": None, "rag_model": None, "embedding_model": None}
    return settings.model_copy(update=unset)


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with fake_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def with_endpoint(settings: Settings, endpoint: FakeEndpoint) -> Settings:
    return Settings(
        data_dir=settings.data_dir, redis_url=settings.redis_url, base_model="demo",
        openai_base_url=endpoint.url, openai_api_key=KEY, rag_model="writer",
    )  # fmt: skip


@pytest.fixture
def endpoint_client(with_endpoint: Settings) -> Iterator[TestClient]:
    migrate(with_endpoint.resolved_database_url)
    with TestClient(create_app(with_endpoint), base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def worker(rows: Database, settings: Settings) -> Iterator[FakeWorker]:
    beat(rows, "inference")
    with FakeWorker(settings.resolved_redis_url, echo) as worker:
        yield worker


def upload(client: TestClient, rows: Database, settings: Settings, *texts: str) -> list[str]:
    """Uploads and indexes documents; their texts are those of a setup job that has read them."""
    files = [("files", (f"{text.split()[0].lower()}.txt", text.encode())) for text in texts]
    documents = client.post("/documents", files=files).json()["data"]
    for document, text in zip(documents, texts, strict=True):
        read = ExtractedText((Section(text, "The handbook", 4),))
        TextCache(Storage(settings.data_dir)).keep(document["sha256"], "txt", read)
    index_all(settings, rows)
    return [document["id"] for document in documents]


def ask(client: TestClient, **values: Any) -> dict[str, Any]:
    found = client.post("/query", json={**ASKED, **values})
    assert found.status_code == 200, found.text
    body: dict[str, Any] = found.json()
    return body


def refused(client: TestClient, path: str = "/query", **values: Any) -> tuple[int, str, str]:
    found = client.post(path, json={**ASKED, **values})
    return found.status_code, found.json()["error"], found.json()["detail"]


def test_a_search_gives_the_chunks_with_their_places(client: TestClient, rows: Database, settings: Settings) -> None:
    leave, _ = upload(client, rows, settings, LEAVE, TRAVEL)
    found = client.post("/retrieval/search", json={**ASKED, "top_k": 3}).json()
    (hit,) = found["data"]
    assert hit.pop("score") > 0
    assert hit == {
        "document_id": leave, "filename": "employees.txt", "heading": "The handbook", "page": 4, "chunk": 0,
        "text": LEAVE, "relevance": 1.0,
    }  # fmt: skip
    assert found["method"] == "full_text"


def test_a_document_s_chunks_come_in_their_order_and_paged(
    client: TestClient, rows: Database, settings: Settings
) -> None:
    text = "\n\n".join(f"Paragraph {number} on leave. " * 60 for number in range(8))
    long, short = upload(client, rows, settings, text, TRAVEL)
    whole = client.get(f"/documents/{long}/chunks", params={"limit": 100}).json()["data"]
    assert [one["chunk"] for one in whole] == list(range(len(whole)))
    assert len(whole) > 3
    assert {(one["heading"], one["page"]) for one in whole} == {("The handbook", 4)}
    assert text.startswith(whole[0]["text"])
    first = client.get(f"/documents/{long}/chunks", params={"limit": 2}).json()
    assert (first["data"], first["has_more"]) == (whole[:2], True)
    rest = client.get(f"/documents/{long}/chunks", params={"limit": 100, "after": first["last_id"]}).json()
    assert (rest["data"], rest["has_more"]) == (whole[2:], False)
    assert [one["text"] for one in client.get(f"/documents/{short}/chunks").json()["data"]] == [TRAVEL]


def test_a_document_that_is_not_indexed_has_no_chunks_and_one_that_is_not_there_is_not_found(
    client: TestClient, rows: Database, settings: Settings
) -> None:
    document = client.post("/documents", files=[("files", ("leave.txt", LEAVE.encode()))]).json()["data"][0]["id"]
    assert client.get(f"/documents/{document}/chunks").json()["data"] == []
    index_all(settings, rows)
    client.delete(f"/documents/{document}")
    assert client.get(f"/documents/{document}/chunks").status_code == 404


def test_a_deleted_document_is_not_found_and_not_cited_even_before_the_index_follows(
    client: TestClient, rows: Database, settings: Settings, worker: FakeWorker
) -> None:
    first, second = upload(client, rows, settings, LEAVE, f"Also: {LEAVE}")
    client.delete(f"/documents/{first}")
    hits = client.post("/retrieval/search", json=ASKED).json()["data"]
    assert [hit["document_id"] for hit in hits] == [second]
    assert [one["document_id"] for one in ask(client, backend="rag")["sources"]] == [second]
    client.delete(f"/documents/{second}")
    assert refused(client, backend="rag")[:2] == (422, "nothing_indexed")
    assert refused(client, "/retrieval/search")[:2] == (422, "nothing_indexed")


def test_deleted_documents_that_are_still_in_the_index_crowd_no_other_out(
    client: TestClient, rows: Database, settings: Settings
) -> None:
    kept, *gone = upload(client, rows, settings, f"{TRAVEL} Leave.", *(f"Leave {n} leave." for n in range(40)))
    for document_id in gone:
        client.delete(f"/documents/{document_id}")
    hits = client.post("/retrieval/search", json={"query": "leave", "top_k": 1}).json()["data"]
    assert [hit["document_id"] for hit in hits] == [kept]


def test_a_document_that_is_deleted_while_the_answer_is_written_is_not_cited(
    client: TestClient, rows: Database, settings: Settings
) -> None:
    first, second = upload(client, rows, settings, LEAVE, f"Also: {LEAVE}")

    def delete_first(question: Question) -> list[Reply]:
        client.delete(f"/documents/{first}")
        return [answer(question, question.turns[-1].content)]

    beat(rows, "inference")
    with FakeWorker(settings.resolved_redis_url, delete_first) as worker:
        body = ask(client, backend="rag")
    assert [one["document_id"] for one in body["sources"]] == [second]
    assert "employees.txt" not in body["answer"]
    assert len(worker.questions) == 2


def test_the_inference_worker_writes_from_numbered_sources_where_no_endpoint_is_set(
    client: TestClient, rows: Database, settings: Settings, worker: FakeWorker
) -> None:
    upload(client, rows, settings, LEAVE, TRAVEL)
    body = ask(client, backend="rag", max_new_tokens=9, temperature=0.5, seed=3, stop="END", top_k=3)
    (question,) = worker.questions
    assert f"[1] employees.txt, The handbook, page 4\n{LEAVE}" in question.turns[0].content
    assert question.turns[0].content.endswith(f"Question: {ASKED['query']}\nAnswer:")
    sampling = question.sampling
    assert (sampling.max_new_tokens, sampling.temperature, sampling.seed, sampling.stop) == (9, 0.5, 3, ("END",))
    assert sampling.top_k == 0, "top_k counts chunks here, not tokens"
    assert (body["backend"], body["model"], body["adapter"], body["fallback"]) == ("rag", "demo", None, False)
    assert (body["usage"], body["id"]) == ({"prompt_tokens": 3, "completion_tokens": 2}, question.id)


def test_fewer_chunks_are_given_until_the_prompt_fits(client: TestClient, rows: Database, settings: Settings) -> None:
    upload(client, rows, settings, *(f"Leave {n}: {LEAVE}" for n in range(5)))

    def reads_two(question: Question) -> list[Reply]:
        if "[3]" in question.turns[0].content:
            return [Refusal(question_id=question.id, code="prompt_too_long", detail="Too long.")]
        return [answer(question, "27 days")]

    beat(rows, "inference")
    with FakeWorker(settings.resolved_redis_url, reads_two):
        assert len(ask(client, backend="rag", top_k=5)["sources"]) == 2


def test_an_endpoint_writes_where_one_is_set(
    endpoint_client: TestClient, rows: Database, with_endpoint: Settings, endpoint: FakeEndpoint
) -> None:
    upload(endpoint_client, rows, with_endpoint, LEAVE)
    body = ask(endpoint_client, backend="rag", max_new_tokens=9, stop=["END"])
    path, authorization, sent = endpoint.requests[0]
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert (sent["model"], sent["max_tokens"], sent["stop"]) == ("writer", 9, ["END"])
    assert LEAVE in sent["messages"][0]["content"]
    assert (body["answer"], body["model"], body["finish_reason"]) == ("As the sources say [1].", "writer", "stop")
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 5}
    assert ask(endpoint_client, backend="rag", model="another")["model"] == "another"


def test_an_endpoint_with_a_small_context_gets_fewer_chunks(
    endpoint_client: TestClient, rows: Database, with_endpoint: Settings, endpoint: FakeEndpoint
) -> None:
    upload(endpoint_client, rows, with_endpoint, *(f"Leave {n}: {LEAVE} {'x' * 400}" for n in range(4)))
    endpoint.most_characters = 1000
    assert len(ask(endpoint_client, backend="rag", top_k=4)["sources"]) == 1


def test_an_endpoint_that_fails_is_named_without_its_secrets(
    endpoint_client: TestClient,
    rows: Database,
    with_endpoint: Settings,
    endpoint: FakeEndpoint,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    upload(endpoint_client, rows, with_endpoint, LEAVE)
    endpoint.status = 401
    status, code, detail = refused(endpoint_client, backend="rag")
    assert (status, code) == (503, "endpoint_unavailable")
    assert "401" in detail
    for secret in (KEY, "something secret", endpoint.url):
        assert secret not in detail
    assert KEY not in caplog.text
    assert KEY not in repr(with_endpoint)


def test_search_by_meaning_finds_what_shares_no_word(
    rows: Database, with_endpoint: Settings, endpoint: FakeEndpoint
) -> None:
    endpoint.meanings = [{"leave", "holiday"}, {"hotels"}]
    settings = with_endpoint.model_copy(update={"embedding_model": "meaning"})
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        leave, _ = upload(client, rows, settings, LEAVE.replace("leave.", "leave ."), TRAVEL)
        found = client.post("/retrieval/search", json={"query": "When is my holiday?"}).json()
        assert found["method"] == "hybrid"
        assert (found["data"][0]["document_id"], found["data"][0]["relevance"] > 0.9) == (leave, True)
        endpoint.status = 500
        found = client.post("/retrieval/search", json={"query": "annual leave"}).json()
        assert (found["method"], found["data"][0]["document_id"]) == ("full_text", leave)


def test_the_adapter_is_asked_by_its_backend(
    client: TestClient, rows: Database, settings: Settings, worker: FakeWorker
) -> None:
    assert refused(client, backend="fine-tuned")[:2] == (404, "version_not_found")
    publish(rows, "older", created_at=time.time() - 60)
    publish(rows, "handbook", created_at=time.time())
    body = ask(client, backend="fine-tuned")
    assert (body["answer"], body["backend"], body["sources"]) == (ASKED["query"], "fine-tuned", [])
    assert (body["adapter"], body["version"]) == ("handbook", 1)
    assert ask(client, backend="fine-tuned", adapter="older")["adapter"] == "older"
    assert refused(client, backend="fine-tuned", adapter="unknown")[:2] == (404, "adapter_not_found")


def test_auto_asks_the_documents_for_what_they_hold_and_the_adapter_for_the_rest(
    client: TestClient, rows: Database, settings: Settings, worker: FakeWorker
) -> None:
    assert refused(client)[:2] == (422, "nothing_indexed")
    publish(rows, "handbook")
    assert ask(client)["backend"] == "fine-tuned", "nothing is indexed"
    upload(client, rows, settings, LEAVE)
    assert ask(client)["backend"] == "rag"
    assert ask(client, query="Who won the football match on Sunday, days ago?")["backend"] == "fine-tuned"
    assert ask(client, query="Qui?")["backend"] == "fine-tuned"


def test_auto_without_an_adapter_asks_the_documents_alone(
    client: TestClient, rows: Database, settings: Settings, worker: FakeWorker
) -> None:
    upload(client, rows, settings, LEAVE)
    assert ask(client, query="Who works for so many days?")["backend"] == "rag"
    body = ask(client, query="Football?")
    assert (body["backend"], body["sources"], body["model"]) == ("rag", [], None)
    assert body["answer"] == "The documents hold nothing about this question."


def test_auto_falls_back_to_the_adapter_when_the_generator_is_down(
    endpoint_client: TestClient, rows: Database, with_endpoint: Settings, endpoint: FakeEndpoint, worker: FakeWorker
) -> None:
    publish(rows, "handbook")
    upload(endpoint_client, rows, with_endpoint, LEAVE)
    endpoint.status = 502
    body = ask(endpoint_client)
    assert (body["backend"], body["adapter"], body["fallback"]) == ("fine-tuned", "handbook", True)
    assert "answered with 502" in body["fallback_reason"]


def test_auto_falls_back_to_the_documents_when_the_adapter_is_down(
    endpoint_client: TestClient, rows: Database, with_endpoint: Settings
) -> None:
    publish(rows, "handbook")
    upload(endpoint_client, rows, with_endpoint, LEAVE)
    body = ask(endpoint_client, query="Who won the match of days past?")
    assert (body["backend"], body["fallback"]) == ("rag", True)
    assert "No inference worker" in body["fallback_reason"]


def test_a_broken_adapter_sends_auto_to_the_documents_and_not_to_the_base_model(
    endpoint_client: TestClient, rows: Database, with_endpoint: Settings
) -> None:
    publish(rows, "handbook")
    upload(endpoint_client, rows, with_endpoint, LEAVE)
    beat(rows, "inference")
    with FakeWorker(with_endpoint.resolved_redis_url, refuse("adapter_broken", "Its files are gone.")) as worker:
        body = ask(endpoint_client, query="Who won the match of days past?")
    assert (body["backend"], body["fallback_reason"]) == ("rag", "Its files are gone.")
    assert worker.questions[0].fallback is False


def test_a_damaged_index_sends_auto_to_the_adapter_and_is_an_error_for_rag(
    client: TestClient, rows: Database, settings: Settings, worker: FakeWorker
) -> None:
    publish(rows, "handbook")
    upload(client, rows, settings, LEAVE)
    for file in (settings.data_dir / "retrieval").rglob("*.*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    assert refused(client, backend="rag")[:2] == (503, "index_unavailable")
    body = ask(client)
    assert (body["backend"], body["fallback"]) == ("fine-tuned", True)
    assert "index" in body["fallback_reason"]


def test_the_error_says_what_is_missing(client: TestClient, rows: Database, settings: Settings) -> None:
    assert "POST /documents" in refused(client, backend="rag")[2]
    client.post("/documents", files=[("files", ("a.txt", b"Some text."))])
    assert "no retrieval worker" in refused(client, backend="rag")[2]
    beat(rows, "retrieval")
    assert "being indexed" in refused(client, backend="rag")[2]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"query": ""}, "query"),
    ({"backend": "both"}, "backend"),
    ({"top_k": 0}, "top_k"),
    ({"max_new_tokens": 0}, "max_new_tokens"),
    ({"stream": True}, "stream"),
    ({"backend": "rag", "adapter": "a"}, "adapter"),
    ({"backend": "fine-tuned", "model": "demo"}, "model"),
]
STRANGE = ['AND OR "', "it's (weird) : * ~ ^", "\\", "?", "\u0000", "'; DROP", "x" * 100_000]


def test_a_wrong_question_is_refused_with_the_field(client: TestClient) -> None:
    for body, named in WRONG:
        status, code, detail = refused(client, **body)
        assert (status, code) == (422, "invalid_request")
        assert named in detail


def test_any_text_can_be_searched_for(client: TestClient, rows: Database, settings: Settings) -> None:
    upload(client, rows, settings, LEAVE)
    for query in STRANGE:
        assert client.post("/retrieval/search", json={"query": query}).status_code == 200, query


def test_an_unknown_model_is_refused(client: TestClient, rows: Database, settings: Settings) -> None:
    upload(client, rows, settings, LEAVE)
    assert refused(client, backend="rag", model="no/such")[:2] == (404, "model_not_found")
