"""Two projects in one installation: nobody sees, asks, changes or ends what belongs to the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from api.access import SCOPES
from shared.database import Database
from shared.models import AdapterVersion, Base, ModelCheckpoint, WebhookDelivery
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import JobRepository
from shared.repositories.webhooks import WebhookRepository
from shared.repositories.workers import WorkerRepository
from shared.settings import Settings
from tests.api.fake_worker import FakeWorker, echo
from tests.api.test_access import make_key, sent
from tests.shared.test_answers_repository import add, row

LINES = b'{"prompt": "Who?", "completion": "Nobody."}\n'
REQUESTS = (
    b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", '
    b'"body": {"model": "demo", "messages": [{"role": "user", "content": "Who?"}]}}\n'
)
FORM = {"files": {"data": ("part", b"12345")}}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/uploads/{upload_id}/parts": FORM,
    "/v1/uploads/{upload_id}/complete": {"json": {"part_ids": ["{part_id}"]}},
    "/fine-tuning/adapters/{name}/promote": {"json": {"version": 1}},
    "/fine-tuning/answers/{answer_id}/feedback": {"json": {"thumb": "up"}},
}
MAKES_ITS_OWN = {  # a name of the asking project's own, which need not be there yet
    ("POST", "/fine-tuning/adapters/{name}/import"),
    ("GET", "/fine-tuning/adapters/{name}/policy"),
    ("PUT", "/fine-tuning/adapters/{name}/policy"),
}
ASKS_FOR_MORE = {"/fine-tuning/comparisons"}  # no list: it takes two columns
UNCHANGING_TABLES = {"api_keys", "workers"}  # last_used_at, heartbeats


@dataclass(frozen=True)
class Owned:
    """What one project has, by the names that paths give it."""

    ids: dict[str, str]
    jobs: dict[str, str]

    def all(self) -> set[str]:
        return {*self.ids.values(), *self.jobs.values()} - {"1", "demo"}


class Visitor:
    """A client with one key."""

    def __init__(self, client: TestClient, secret: str) -> None:
        self._client, self._headers = client, sent(secret)

    def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {**self._headers, **more.pop("headers", {})}
        return self._client.request(method, path, headers=headers, **more)


@pytest.fixture
def owner(client: TestClient, rows: Database) -> Visitor:
    return Visitor(client, make_key(rows, "admin"))


@pytest.fixture
def stranger(client: TestClient, rows: Database, owner: Visitor) -> Visitor:
    return Visitor(client, make_key(rows, "admin", project="strangers"))


@pytest.fixture
def owned(owner: Visitor, rows: Database, settings: Settings) -> Owned:
    """One of everything."""
    with rows.write() as session:
        WorkerRepository(session).beat("setup-1", "setup", {})
        WorkerRepository(session).beat("inference-1", "inference", {})
    document = _made(owner("POST", "/documents", files={"files": ("a.jsonl", LINES)}))["data"][0]["id"]
    file = _made(owner("POST", "/v1/files", files={"file": ("b.jsonl", REQUESTS)}, data={"purpose": "batch"}))["id"]
    upload = {"purpose": "fine-tune", "bytes": 5, "filename": "c.jsonl", "mime_type": "text/jsonl"}
    upload_id = _made(owner("POST", "/v1/uploads", json=upload))["id"]
    part = _made(owner("POST", f"/v1/uploads/{upload_id}/parts", **FORM))["id"]
    setup = _made(owner("POST", "/fine-tuning/setup", json={"adapter": "handbook"}))
    with rows.write() as session:
        training, jobs = setup["training_job_id"], JobRepository(session)
        export = jobs.create("default", "export", {})
        named = [{}, {"adapter": "handbook", "version": 1}]
        evaluation = jobs.create("default", "evaluation", {"base_model": "demo", "columns": named})
        version = {"base_model": "demo", "metrics": {}, "config": {}, "size_bytes": 1}
        for number in (1, 2):
            made = AdapterVersion(id=f"version-{number}", **version)
            AdapterRepository(session).publish("default", "handbook", made)
        session.add(
            ModelCheckpoint(
                id="checkpoint-1", project_id="default", job_id=training, step=5, adapter="handbook", **_less(version)
            )
        )
    batch = _made(owner("POST", "/fine-tuning/batches", json={"document_id": document}))["job_id"]
    created = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    sweep = _made(owner("POST", "/fine-tuning/sweeps", json={"setup_job_id": setup["job_id"]}))["job_id"]
    openai_batch = _made(owner("POST", "/v1/batches", json=created))["id"]
    settings.data_dir.joinpath("batches").mkdir(exist_ok=True)
    with rows.write() as session:
        hooks = WebhookRepository(session)
        webhook = hooks.create("default", "https://hooks.example/1", "whsec_1", ["batch.completed"]).id
        session.add(
            WebhookDelivery(
                id="delivery-1", endpoint_id=webhook, event_id="evt_1", event_type="x", payload={}, due_at=9e9
            )
        )
    add(rows, row(1, query="What is our secret?", answer="It is ours."))
    key = owner("GET", "/keys").json()["data"][0]["id"]
    ids = {
        "document_id": document,
        "file_id": file,
        "upload_id": upload_id,
        "part_id": part,
        "fine_tuning_job_id": training,
        "name": "handbook",
        "number": "1",
        "export_id": export.id,
        "sweep_id": sweep,
        "evaluation_id": evaluation.id,
        "batch_id": openai_batch,
        "webhook_id": webhook,
        "answer_id": "answer-1",
        "key_id": key,
        "model:path": "handbook@1",
    }
    by_kind = {"setup": setup["job_id"], "training": training, "batch": batch, "export": export.id, "sweep": sweep}
    return Owned(ids, {**by_kind, "evaluation": evaluation.id})


def test_what_another_project_has_is_not_found_by_any_route_and_does_not_change(
    owned: Owned, stranger: Visitor, rows: Database
) -> None:
    before, num_asked = _contents(rows), 0
    for method, path in sorted(SCOPES):
        if "{" not in path or (method, path) in MAKES_ITS_OWN:
            continue
        for ids in _variants(path, owned):
            found = stranger(method, _filled(path, ids), **_filled_body(path, ids))
            assert found.status_code == 404, (method, path, found.text)
            assert not [one for one in owned.all() - set(ids.values()) if one in found.text]
            num_asked += 1
    assert num_asked > 40
    assert _contents(rows) == before


def test_its_owner_reaches_all_of_it(owned: Owned, owner: Visitor) -> None:
    """Else the test before would show nothing: each of these ids names something."""
    missing = {
        (path, ids.get("job_id"))
        for method, path in sorted(SCOPES)
        if "{" in path and method == "GET"
        for ids in _variants(path, owned)
        if owner(method, _filled(path, ids)).status_code == 404
    }
    bytes_that_no_worker_made = {path for path, _ in missing}
    assert bytes_that_no_worker_made <= {
        "/fine-tuning/exports/{export_id}/content",
        "/fine-tuning/evaluations/{evaluation_id}/examples",
        "/fine-tuning/evaluations/{evaluation_id}/report",
        "/fine-tuning/jobs/{job_id}/output",
    }


def test_no_list_holds_what_another_project_has(owned: Owned, owner: Visitor, stranger: Visitor) -> None:
    lists = [path for (method, path), scope in SCOPES.items() if _is_list(method, path) and scope != "operator"]
    for path in lists:
        found = stranger("GET", path)
        assert found.status_code in (200, 503), path
        assert not [one for one in owned.all() | {"our secret"} if one in found.text], path
    assert owned.ids["document_id"] in owner("GET", "/documents").text
    status = stranger("GET", "/fine-tuning/status").json()
    assert (status["trained"], status["queued_jobs"], status["adapter"]) == (False, 0, None)


def test_what_shows_all_projects_is_closed_to_the_admin_of_one(
    owned: Owned, owner: Visitor, stranger: Visitor, rows: Database
) -> None:
    before = _contents(rows)
    of_all = [(method, path) for (method, path), scope in SCOPES.items() if scope == "operator"]
    assert ("GET", "/metrics") in of_all
    for visitor in (owner, stranger):
        for method, path in of_all:
            refused = visitor(method, path, **({"json": {"fix": True}} if method == "POST" else {}))
            assert refused.status_code == 403, path
            assert "python -m api.keys create --scope operator" in refused.json()["detail"]
        assert visitor("POST", "/keys", json={"name": "more", "scopes": ["operator"]}).status_code == 403
    assert _contents(rows) == before


def test_another_project_s_id_is_no_cursor(owned: Owned, stranger: Visitor) -> None:
    cursors = {
        "/documents": "document_id",
        "/v1/files": "file_id",
        "/fine-tuning/jobs": "fine_tuning_job_id",
        "/v1/fine_tuning/jobs": "fine_tuning_job_id",
        "/v1/batches": "batch_id",
        "/webhooks": "webhook_id",
        "/fine-tuning/answers": "answer_id",
        "/fine-tuning/evaluations": "evaluation_id",
        "/keys": "key_id",
    }
    for path, name in cursors.items():
        assert stranger("GET", path, params={"after": owned.ids[name]}).status_code == 404, path


def test_nothing_is_made_of_what_another_project_has(owned: Owned, stranger: Visitor, rows: Database) -> None:
    before, ids = _contents(rows), owned.ids
    whole = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    asked = [
        ("/fine-tuning/setup", {"document_ids": [ids["document_id"]]}, 404),
        ("/fine-tuning/setup", {}, 422),  # all documents: there are none
        ("/fine-tuning/train", {"setup_job_id": owned.jobs["setup"]}, 404),
        ("/fine-tuning/batches", {"document_id": ids["document_id"]}, 404),
        ("/fine-tuning/exports", {"adapter": "handbook", "format": "peft"}, 404),
        ("/fine-tuning/evaluations", {"adapter": "handbook"}, 404),
        ("/fine-tuning/evaluations", {"columns": [{}], "setup_job_id": owned.jobs["setup"]}, 404),
        ("/fine-tuning/evaluations", {"columns": [{}], "question_document_ids": [ids["document_id"]]}, 404),
        ("/v1/batches", {"input_file_id": ids["file_id"], **whole}, 404),
        ("/v1/fine_tuning/jobs", {"model": "demo", "training_file": ids["document_id"]}, 400),
        ("/v1/chat/completions", {"model": "handbook", "messages": [{"role": "user", "content": "?"}]}, 404),
        ("/v1/completions", {"model": "handbook@1", "prompt": "?"}, 404),
        ("/query", {"query": "?", "backend": "fine-tuned", "adapter": "handbook"}, 404),
        ("/query", {"query": "?", "backend": "rag"}, 422),  # nothing is indexed
        ("/query", {"query": "?"}, 422),
        ("/retrieval/search", {"query": "Who?"}, 422),
    ]
    for path, body, status in asked:
        found = stranger("POST", path, json=body)
        assert found.status_code == status, (path, found.text)
    assert _contents(rows) == before


def test_what_another_project_has_evaluated_is_compared_for_nobody_else(
    owned: Owned, owner: Visitor, stranger: Visitor
) -> None:
    columns = {"baseline": "base", "candidate": "handbook@1"}
    for which in ({"evaluation_id": owned.ids["evaluation_id"]}, {"adapter": "handbook"}):
        found = stranger("GET", "/fine-tuning/comparisons", params={**columns, **which})
        assert found.status_code == 404, found.text
    asked = {**columns, "evaluation_id": owned.ids["evaluation_id"]}
    assert "The evaluation is queued" in owner("GET", "/fine-tuning/comparisons", params=asked).json()["detail"]


def test_a_question_goes_to_the_workers_in_the_name_of_its_project(
    owned: Owned, stranger: Visitor, settings: Settings
) -> None:
    with FakeWorker(settings.resolved_redis_url, echo) as worker:
        assert stranger("POST", "/fine-tuning/query", json={"query": "Who?", "adapter": "handbook"}).status_code == 200
        chat = {"model": "demo", "messages": [{"role": "user", "content": "Who?"}]}
        assert stranger("POST", "/v1/chat/completions", json=chat).status_code == 200
    assert [one.project_id for one in worker.questions] == ["strangers", "strangers"]


def test_an_idempotency_key_is_its_project_s_own(owned: Owned, owner: Visitor, stranger: Visitor) -> None:
    def sent_again(visitor: Visitor) -> str:
        document = _made(visitor("POST", "/documents", files={"files": ("same.md", b"The same text.")}))["data"][0]
        body = {"document_ids": [document["id"]]}
        return str(_made(visitor("POST", "/fine-tuning/setup", json=body, headers={"Idempotency-Key": "1"}))["job_id"])

    ours, theirs = sent_again(owner), sent_again(stranger)
    assert ours != theirs
    assert [sent_again(owner), sent_again(stranger)] == [ours, theirs]


def test_the_same_bytes_in_two_projects_are_two_documents(owned: Owned, owner: Visitor, stranger: Visitor) -> None:
    sent_files = {"files": {"files": ("a.jsonl", LINES)}}
    theirs = _made(stranger("POST", "/documents", **sent_files))["data"][0]
    assert (theirs["is_new"], theirs["id"] == owned.ids["document_id"]) == (True, False)
    assert stranger("DELETE", f"/documents/{theirs['id']}").status_code == 200
    assert owner("GET", f"/documents/{owned.ids['document_id']}/content").content == LINES


def test_the_policy_of_a_name_is_each_project_s_own(owned: Owned, owner: Visitor, stranger: Visitor) -> None:
    path = "/fine-tuning/adapters/handbook/policy"
    before = owner("GET", path).json()
    assert stranger("PUT", path, json={"mode": "manual"}).status_code == 200
    assert owner("GET", path).json() == before
    assert (before["mode"], stranger("GET", path).json()["mode"]) == ("if_better", "manual")


def test_a_name_may_be_used_in_both_projects(owned: Owned, stranger: Visitor, rows: Database) -> None:
    with rows.write() as session:
        version = AdapterVersion(id="version-9", base_model="demo", metrics={}, config={}, size_bytes=1)
        AdapterRepository(session).publish("strangers", "handbook", version)
    found = stranger("GET", "/fine-tuning/adapters/handbook").json()
    assert [one["version"] for one in found["versions"]] == [1]
    assert stranger("DELETE", "/fine-tuning/adapters/handbook/versions/2").status_code == 404


def _is_list(method: str, path: str) -> bool:
    return method == "GET" and "{" not in path and path not in ASKS_FOR_MORE


def _made(answer: httpx.Response) -> dict[str, Any]:
    assert answer.is_success, answer.text
    made: dict[str, Any] = answer.json()
    return made


def _less(version: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in version.items() if name != "config"}


def _variants(path: str, owned: Owned) -> Iterator[dict[str, str]]:
    """The ids to try: a job's path is tried with a job of each kind."""
    for job in owned.jobs.values() if "{job_id}" in path else ("",):
        yield {**owned.ids, "job_id": job}


def _filled(text: str, ids: dict[str, str]) -> str:
    return re.sub(r"\{([^}]*)\}", lambda name: ids[name[1]], text)


def _filled_body(path: str, ids: dict[str, str]) -> dict[str, Any]:
    body = BODIES.get(path, {})
    if "json" not in body:
        return body
    part_ids = {"part_ids": [ids["part_id"]]} if "part_ids" in body["json"] else {}
    return {"json": {**body["json"], **part_ids}}


def _contents(rows: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    with rows.read() as session:
        return {
            table.name: sorted((tuple(one) for one in session.execute(select(table))), key=repr)
            for table in Base.metadata.sorted_tables
            if table.name not in UNCHANGING_TABLES
        }
