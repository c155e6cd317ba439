"""Batches of the OpenAI dialect as its own client sees them; the worker is played by the test."""

from __future__ import annotations

import time

import openai
import pytest
from fastapi.testclient import TestClient
from openai.types import Batch

from shared.batch_parameters import OpenAIBatchParameters
from shared.database import Database
from shared.errors import BatchExpired, DiskFull
from shared.models import Document, Job
from shared.repositories.jobs import Claim, JobRepository
from tests.api.conftest import Upload, claim

CHAT = "/v1/chat/completions"
RESULT = {
    "lines": 3, "answered": 2, "failed": 1, "prompt_tokens": 5, "completion_tokens": 7,
    "output_file_id": "file-out", "error_file_id": "file-err",
}  # fmt: skip


@pytest.fixture
def api(client: TestClient) -> openai.OpenAI:
    """The official client, strict about every answer's type."""
    return openai.OpenAI(
        base_url="http://localhost/v1",
        api_key="unused",
        _strict_response_validation=True,
        max_retries=0,
        http_client=client,
    )


@pytest.fixture
def input_file(rows: Database) -> str:
    with rows.write() as session:
        session.add(
            Document(
                id="file-input", project_id="default", filename="in.jsonl", kind="jsonl", size_bytes=1, sha256="0" * 64,
                purpose="batch",
            )
        )  # fmt: skip
    return "file-input"


@pytest.fixture
def batch(api: openai.OpenAI, input_file: str) -> Batch:
    return api.batches.create(input_file_id=input_file, endpoint=CHAT, completion_window="24h", metadata={"team": "a"})


def row(rows: Database, batch_id: str) -> Job:
    with rows.read() as session:
        return JobRepository(session).get("default", batch_id)


def test_a_new_batch_is_validated_first(api: openai.OpenAI, rows: Database, batch: Batch, input_file: str) -> None:
    assert batch.id.startswith("batch_")
    assert (batch.object, batch.endpoint, batch.completion_window) == ("batch", CHAT, "24h")
    assert (batch.status, batch.input_file_id, batch.metadata) == ("validating", input_file, {"team": "a"})
    assert batch.expires_at is not None
    assert abs(batch.expires_at - batch.created_at - 24 * 3600) <= 1
    assert (batch.errors, batch.output_file_id, batch.error_file_id, batch.in_progress_at) == (None, None, None, None)
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 0, "completed": 0, "failed": 0}
    assert api.batches.retrieve(batch.id) == batch
    assert OpenAIBatchParameters.model_validate(row(rows, batch.id).parameters).openai.endpoint == CHAT


def test_the_expiry_of_the_output_reaches_the_worker(api: openai.OpenAI, rows: Database, input_file: str) -> None:
    made = api.batches.create(
        input_file_id=input_file,
        endpoint="/v1/completions",
        completion_window="24h",
        output_expires_after={"anchor": "created_at", "seconds": 3600},
    )
    parameters = OpenAIBatchParameters.model_validate(row(rows, made.id).parameters)
    assert (parameters.openai.output_expires_after_seconds, made.metadata) == (3600, None)


def test_a_batch_s_status_and_times_follow_its_job(api: openai.OpenAI, rows: Database, batch: Batch) -> None:
    claimed = claim(rows, "batch")
    assert api.batches.retrieve(batch.id).status == "validating"
    progress = {"total_steps": 3, "step": 2, "failed": 1, "model": "demo"}
    with rows.write() as session:
        JobRepository(session).report_progress(claimed, progress)
    working = api.batches.retrieve(batch.id)
    assert (working.status, working.model, working.usage) == ("in_progress", "demo", None)
    assert working.in_progress_at is not None
    assert working.request_counts is not None
    assert working.request_counts.to_dict() == {"total": 3, "completed": 1, "failed": 1}
    with rows.write() as session:
        JobRepository(session).report_progress(claimed, {**progress, "finalizing_at": 5})
    assert api.batches.retrieve(batch.id).status == "finalizing"
    with rows.write() as session:
        JobRepository(session).succeed(claimed, RESULT)
    done = api.batches.retrieve(batch.id)
    assert (done.status, done.output_file_id, done.error_file_id) == ("completed", "file-out", "file-err")
    assert (done.finalizing_at, done.cancelled_at, done.failed_at, done.expired_at) == (5, None, None, None)
    assert done.completed_at is not None
    assert done.usage is not None
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens) == (5, 7, 12)
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 3, "completed": 2, "failed": 1}


def test_a_batch_whose_window_is_over_has_expired(api: openai.OpenAI, rows: Database, batch: Batch) -> None:
    with rows.write() as session:
        jobs = JobRepository(session)
        jobs.fail(claim_in(jobs), BatchExpired(), RESULT)
    done = api.batches.retrieve(batch.id)
    assert (done.status, done.errors, done.output_file_id) == ("expired", None, "file-out")
    assert done.expired_at is not None
    assert (done.failed_at, done.completed_at) == (None, None)


def test_a_failed_batch_says_why(api: openai.OpenAI, rows: Database, batch: Batch) -> None:
    with rows.write() as session:
        jobs = JobRepository(session)
        jobs.fail(claim_in(jobs), DiskFull())
    done = api.batches.retrieve(batch.id)
    assert done.status == "failed"
    assert done.failed_at is not None
    assert done.errors is not None
    assert done.errors.data is not None
    assert done.errors.object == "list"
    assert done.errors.data[0].to_dict() == {
        "code": "disk_full", "message": DiskFull.cure, "line": None, "param": None,
    }  # fmt: skip


def test_a_batch_that_never_ran_is_cancelled_at_once(api: openai.OpenAI, batch: Batch) -> None:
    cancelled = api.batches.cancel(batch.id)
    assert (cancelled.status, cancelled.output_file_id) == ("cancelled", None)
    assert cancelled.cancelled_at == cancelled.cancelling_at is not None


def test_a_running_batch_is_cancelling_until_its_worker_has_ended_it(
    api: openai.OpenAI, rows: Database, batch: Batch
) -> None:
    claimed = claim(rows, "batch")
    asked = api.batches.cancel(batch.id)
    assert (asked.status, asked.cancelled_at) == ("cancelling", None)
    assert asked.cancelling_at is not None
    assert abs(asked.cancelling_at - time.time()) < 5
    assert api.batches.cancel(batch.id) == asked
    with rows.write() as session:
        JobRepository(session).cancel_held(claimed, RESULT)
    done = api.batches.retrieve(batch.id)
    assert (done.status, done.output_file_id, done.cancelling_at) == ("cancelled", "file-out", asked.cancelling_at)


def test_a_batch_that_rests_is_woken_to_be_cancelled(
    client: TestClient, api: openai.OpenAI, rows: Database, batch: Batch
) -> None:
    claimed = claim(rows, "batch")
    client.post(f"/fine-tuning/jobs/{batch.id}/pause")
    with rows.write() as session:
        JobRepository(session).hand_back(claimed)
    assert row(rows, batch.id).status == "paused"
    assert api.batches.cancel(batch.id).status == "cancelling"
    assert row(rows, batch.id).status == "queued"


def test_a_batch_that_has_ended_cannot_be_cancelled(api: openai.OpenAI, rows: Database, batch: Batch) -> None:
    with rows.write() as session:
        jobs = JobRepository(session)
        jobs.succeed(claim_in(jobs), RESULT)
    with pytest.raises(openai.BadRequestError) as refused:
        api.batches.cancel(batch.id)
    assert refused.value.code == "illegal_transition"


def test_batches_are_listed_page_by_page_and_native_ones_are_not(
    client: TestClient, api: openai.OpenAI, upload: Upload, input_file: str
) -> None:
    made = [api.batches.create(input_file_id=input_file, endpoint=CHAT, completion_window="24h").id for _ in range(3)]
    document = upload('{"query": "x"}\n', "native.jsonl")
    native = client.post("/fine-tuning/batches", json={"document_id": document, "model": "demo"}).json()["job_id"]
    first = api.batches.list(limit=2)
    assert [one.id for one in first.data] == made[:0:-1]
    assert first.has_more
    assert [one.id for one in api.batches.list(limit=2)] == made[::-1]
    assert api.batches.list(after=made[0]).data == []
    for ask in (lambda: api.batches.retrieve(native), lambda: api.batches.cancel(native)):
        with pytest.raises(openai.NotFoundError) as unknown:
            ask()
        assert (unknown.value.code, unknown.value.param) == ("job_not_found", "batch_id")


def test_bad_requests_name_what_is_wrong(
    client: TestClient, api: openai.OpenAI, upload: Upload, input_file: str
) -> None:
    raw = upload()
    good = {"input_file_id": input_file, "endpoint": CHAT, "completion_window": "24h"}
    bad = [
        ({"input_file_id": "file-none"}, 404, "input_file_id"),
        ({"input_file_id": raw}, 400, "input_file_id"),
        ({"input_file_id": "../x"}, 400, "input_file_id"),
        ({"endpoint": "/v1/embeddings"}, 400, "endpoint"),
        ({"completion_window": "1h"}, 400, "completion_window"),
        ({"metadata": {"k" * 65: "v"}}, 400, "metadata"),
        ({"metadata": {"k": "v" * 513}}, 400, "metadata"),
        ({"metadata": {f"k{number}": "v" for number in range(17)}}, 400, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 10}}, 400, "output_expires_after"),
        ({"surprise": 1}, 400, "surprise"),
    ]
    for wrong, status, param in bad:
        answer = client.post("/v1/batches", json={**good, **wrong})
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (status, "invalid_request_error"), (wrong, error)
        assert error["param"].startswith(param), (wrong, error)
    assert api.batches.list().data == []


def test_a_retry_with_the_same_key_makes_no_second_batch(api: openai.OpenAI, input_file: str) -> None:
    made = {
        api.batches.create(
            input_file_id=input_file,
            endpoint=CHAT,
            completion_window="24h",
            extra_headers={"Idempotency-Key": "once"},
        ).id
        for _ in range(2)
    }
    assert len(made) == 1


def claim_in(jobs: JobRepository) -> Claim:
    claimed = jobs.claim_next("batch", "worker-1", 60.0)
    assert claimed is not None
    return claimed
