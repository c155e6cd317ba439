from __future__ import annotations

import json

import redis
from fastapi.testclient import TestClient

from shared.batch_parameters import BatchParameters
from shared.database import Database
from shared.messages import Question, Sampling, Turn
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage
from shared.streams import ABORTS, BACKGROUND_QUESTIONS, QUESTIONS
from tests.api.conftest import Upload, claim, publish

LINES = '{"query": "One?"}\n{"query": "Two?"}\n'


def parameters_of(database: Database, job_id: str) -> BatchParameters:
    with database.read() as session:
        return BatchParameters.model_validate(JobRepository(session).get("default", job_id).parameters)


def create(client: TestClient, upload: Upload, **body: object) -> str:
    answer = client.post(
        "/fine-tuning/batches", json={"document_id": upload(LINES, "questions.jsonl"), "model": "demo", **body}
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def test_a_batch_is_a_job_that_says_where_its_answers_come(client: TestClient, rows: Database, upload: Upload) -> None:
    document = upload(LINES, "questions.jsonl")
    answer = client.post(
        "/fine-tuning/batches", json={"document_id": document, "model": "demo", "max_new_tokens": 7, "stop": ["\n"]}
    )
    assert answer.status_code == 202
    made = answer.json()
    assert made["job_id"].startswith("batch_")
    assert made == {
        "job_id": made["job_id"],
        "status": "queued",
        "output": f"/fine-tuning/jobs/{made['job_id']}/output",
    }
    job = client.get(f"/fine-tuning/jobs/{made['job_id']}").json()
    assert (job["kind"], job["status"], job["model"]) == ("batch", "queued", "demo")
    assert client.get("/fine-tuning/jobs?kind=batch").json()["data"][0]["id"] == made["job_id"]
    assert parameters_of(rows, made["job_id"]).options() == {"model": "demo", "max_new_tokens": 7, "stop": ["\n"]}


def test_the_version_that_is_live_when_the_batch_is_created_answers_it(
    client: TestClient, rows: Database, upload: Upload
) -> None:
    publish(rows, "ours")
    document = upload(LINES, "questions.jsonl")
    job_id = client.post("/fine-tuning/batches", json={"document_id": document}).json()["job_id"]
    publish(rows, "ours", size_bytes=2)
    parameters = parameters_of(rows, job_id)
    assert (parameters.adapter, parameters.version) == ("ours", 1)


def test_a_batch_needs_a_jsonl_document_and_somebody_to_answer(client: TestClient, upload: Upload) -> None:
    jsonl, text = upload(LINES, "questions.jsonl"), upload()
    refusals = [
        ({"document_id": text, "model": "demo"}, 422, "invalid_request"),
        ({"document_id": "file-none", "model": "demo"}, 404, "document_not_found"),
        ({"document_id": jsonl, "model": "nobody/knows"}, 422, "model_not_allowed"),
        ({"document_id": jsonl, "adapter": "none"}, 404, "adapter_not_found"),
        ({"document_id": jsonl}, 404, "adapter_not_found"),
        ({"document_id": jsonl, "model": "demo", "tempo": 1}, 422, "invalid_request"),
        ({"document_id": jsonl, "model": "demo", "version": 1}, 422, "invalid_request"),
    ]
    for body, status, code in refusals:
        answer = client.post("/fine-tuning/batches", json=body)
        assert (answer.status_code, answer.json()["error"]) == (status, code), body


def test_the_output_can_be_read_while_it_grows_and_holds_whole_lines_alone(
    client: TestClient, settings: Settings, upload: Upload
) -> None:
    job_id = create(client, upload)
    assert client.get(f"/fine-tuning/jobs/{job_id}/output").status_code == 404
    path = Storage(settings.data_dir).batch_output(job_id)
    path.parent.mkdir(parents=True)
    whole = "".join(json.dumps({"line": number, "answer": "ä" * 70_000}) + "\n" for number in (1, 2))
    path.write_text(whole + '{"line": 3, "answer": "' + "x" * 200_000)
    answer = client.get(f"/fine-tuning/jobs/{job_id}/output")
    assert answer.status_code == 200
    assert answer.text == whole
    assert answer.headers["content-type"].startswith("application/jsonl")
    assert int(answer.headers["content-length"]) == len(whole.encode())
    path.write_text('{"line": 1')
    assert client.get(f"/fine-tuning/jobs/{job_id}/output").content == b""


def test_only_a_batch_has_an_output(client: TestClient, upload: Upload) -> None:
    upload()
    setup = client.post("/fine-tuning/setup", json={"train": False}).json()["job_id"]
    assert client.get(f"/fine-tuning/jobs/{setup}/output").status_code == 404


def test_a_batch_can_be_paused_and_resumed(client: TestClient, rows: Database, upload: Upload) -> None:
    job_id = create(client, upload)
    claimed = claim(rows, "batch")
    assert client.post(f"/fine-tuning/jobs/{job_id}/pause").json()["status"] == "pausing"
    with rows.write() as session:
        JobRepository(session).hand_back(claimed)
    assert client.post(f"/fine-tuning/jobs/{job_id}/resume").json()["status"] == "queued"


def test_a_cancelled_batch_s_questions_are_aborted_and_no_other_s(
    client: TestClient, settings: Settings, upload: Upload
) -> None:
    job_id = create(client, upload)
    with redis.Redis.from_url(settings.resolved_redis_url, decode_responses=True, protocol=2) as broker:
        for stream, name in (
            (BACKGROUND_QUESTIONS, f"{job_id}.1"),
            (BACKGROUND_QUESTIONS, "batch_x.1"),
            (QUESTIONS, "a"),
        ):
            question = Question(
                id=name, project_id="default", reply_to="r", turns=(Turn(role="user", content="x"),),
                sampling=Sampling(), model="demo", deadline=1e12, asked_at=0.0,
            )  # fmt: skip
            broker.xadd(stream, {"question": question.model_dump_json()})
        with broker.pubsub(ignore_subscribe_messages=True) as aborts:
            aborts.subscribe(ABORTS)
            aborts.get_message(timeout=5)
            assert client.post(f"/fine-tuning/jobs/{job_id}/cancel").json()["status"] == "cancelled"
            message = aborts.get_message(timeout=5)
            assert message is not None
            assert message["data"] == f"{job_id}.1"
            assert aborts.get_message(timeout=0.1) is None
