"""Batches of the OpenAI dialect under their supervisor: killed, cancelled, expired, and each line in one file once."""

from __future__ import annotations

import json
import os
import signal
import time

import redis
from fastapi.testclient import TestClient
from openai import OpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion

from api.main import create_app
from shared.models import Job
from shared.repositories.documents import DocumentRepository
from shared.streams import replies_of
from tests.batches.conftest import Bench, EchoWorker
from tests.batches.files import chat_line, chat_lines, completion_line
from tests.jobs.runners import starts
from tests.waiting import until


def test_every_request_is_answered_as_its_endpoint_would(bench: Bench, worker: EchoWorker) -> None:
    job_id = bench.create_openai(*chat_lines(3))
    worker.allow(3)
    bench.supervisor.work()
    job = bench.job(job_id)
    assert (job.status, job.progress["model"]) == ("succeeded", "demo")
    assert job.result is not None
    assert job.result["error_file_id"] is None
    lines = {line["custom_id"]: line for line in bench.made_file(job_id, "output_file_id")}
    assert sorted(lines) == ["q1", "q2", "q3"]
    first = lines["q1"]
    assert first["id"].startswith("batch_req_")
    assert (first["error"], first["response"]["status_code"]) == (None, 200)
    assert first["response"]["request_id"]
    body = ChatCompletion.model_validate(first["response"]["body"], strict=True)
    assert (body.model, body.choices[0].message.content, body.choices[0].finish_reason) == (
        "demo",
        "Question 1",
        "stop",
    )
    assert body.usage is not None
    assert body.usage.total_tokens == 5
    assert abs(body.created - time.time()) < 60
    assert len({line["id"] for line in lines.values()}) == 3


def test_texts_are_continued(bench: Bench, worker: EchoWorker) -> None:
    lines = [
        completion_line("plain", "Once"),
        completion_line("echoed", ["Upon"], echo=True),
        completion_line("two", ["a", "b"]),
    ]
    job_id = bench.create_openai(*lines, endpoint="/v1/completions")
    worker.allow(2)
    bench.supervisor.work()
    bodies = {
        line["custom_id"]: Completion.model_validate(line["response"]["body"], strict=True)
        for line in bench.made_file(job_id, "output_file_id")
    }
    assert {name: body.choices[0].text for name, body in bodies.items()} == {"plain": "Once", "echoed": "UponUpon"}
    (refused,) = bench.made_file(job_id, "error_file_id")
    assert (refused["custom_id"], refused["response"]["body"]["error"]["param"]) == ("two", "prompt")


def test_what_is_wrong_with_a_request_is_its_own_line_of_the_error_file(bench: Bench, worker: EchoWorker) -> None:
    job_id = bench.create_openai(
        chat_line("fine", "Hello"),
        chat_line("unknown", "Hello", model="nobody/knows"),
        chat_line("hot", "Hello", temperature=3),
        chat_line("streamed", "Hello", stream=True),
        chat_line("empty", "Hello", messages=[]),
    )
    worker.allow(1)
    bench.supervisor.work()
    job = bench.job(job_id)
    assert job.status == "succeeded"
    assert job.result is not None
    assert (job.result["lines"], job.result["answered"], job.result["failed"]) == (5, 1, 4)
    assert job.progress["model"] is None
    errors = {line["custom_id"]: line for line in bench.made_file(job_id, "error_file_id")}
    said = {
        name: (line["response"]["status_code"], line["response"]["body"]["error"]["code"],
               line["response"]["body"]["error"]["param"])
        for name, line in errors.items()
    }  # fmt: skip
    assert said == {
        "unknown": (404, "model_not_found", "model"),
        "hot": (400, "invalid_request", "temperature"),
        "streamed": (400, "invalid_request", "stream"),
        "empty": (400, "invalid_request", "messages"),
    }
    assert all(line["error"] is None for line in errors.values())
    assert errors["hot"]["response"]["body"]["error"]["type"] == "invalid_request_error"
    assert [line["custom_id"] for line in bench.made_file(job_id, "output_file_id")] == ["fine"]


def test_a_file_that_breaks_the_rules_fails_and_no_line_is_asked(bench: Bench) -> None:
    job_id = bench.create_openai(chat_line("a", "Hello"), "{broken", chat_line("a", "Hello"))
    bench.supervisor.work()
    job = bench.job(job_id)
    assert (job.status, job.error_code, job.result) == ("failed", "invalid_request", None)
    assert [(one["code"], one["line"], one["param"]) for one in job.progress["errors"]] == [
        ("invalid_json_line", 2, None),
        ("duplicate_custom_id", 3, "custom_id"),
    ]
    assert bench.output(job_id) == []


def test_odd_lines_are_read_the_same_way_when_checked_and_when_asked(bench: Bench, worker: EchoWorker) -> None:
    job_id = bench.create_openai("\ufeff", "\u00a0\x1c", chat_line("ä" * 512, "Grüße\u2028"))
    worker.allow(1)
    bench.supervisor.work()
    assert (bench.job(job_id).result or {})["lines"] == 1
    (answered,) = bench.made_file(job_id, "output_file_id")
    assert answered["custom_id"] == "ä" * 512
    assert answered["response"]["body"]["choices"][0]["message"]["content"] == "Grüße\u2028"


def test_a_batch_that_is_killed_in_the_middle_has_every_line_once(bench: Bench, worker: EchoWorker) -> None:
    job_id = bench.create_openai(*chat_lines(60), chat_line("bad", "Hello", model="nobody/knows"))
    thread = bench.work_in_background()
    worker.allow(25)
    until(lambda: len(bench.output(job_id)) >= 25)
    os.kill(starts(bench.settings.data_dir, job_id)[0], signal.SIGKILL)
    worker.allow(1000)
    thread.join()
    job = bench.job(job_id)
    assert (job.status, job.attempt) == ("succeeded", 2)
    answered = [line["custom_id"] for line in bench.made_file(job_id, "output_file_id")]
    assert sorted(answered) == sorted(f"q{number}" for number in range(1, 61))
    assert [line["custom_id"] for line in bench.made_file(job_id, "error_file_id")] == ["bad"]
    assert sorted(worker.answered) == sorted(f"{job_id}.{number}" for number in range(1, 61))  # nothing twice


def test_a_cancelled_batch_ends_with_what_it_has(bench: Bench, worker: EchoWorker) -> None:
    job_id = bench.create_openai(*chat_lines(200))
    thread = bench.work_in_background()
    worker.allow(5)
    until(lambda: len(bench.output(job_id)) == 5)
    bench.ask_to_cancel(job_id)
    thread.join()
    job = bench.job(job_id)
    assert job.status == "cancelled"
    assert job.result is not None
    assert (job.result["lines"], job.result["answered"], job.result["error_file_id"]) == (200, 5, None)
    assert len(bench.made_file(job_id, "output_file_id")) == 5
    with redis.Redis.from_url(bench.settings.resolved_redis_url) as client:
        assert not client.exists(replies_of(job_id))


def test_a_batch_that_rested_when_it_was_cancelled_still_ends_with_what_it_has(
    bench: Bench, worker: EchoWorker
) -> None:
    job_id = bench.create_openai(*chat_lines(100))
    thread = bench.work_in_background()
    worker.allow(5)
    until(lambda: len(bench.output(job_id)) == 5)
    bench.move("pause", job_id)
    thread.join()
    assert bench.job(job_id).status == "paused"
    bench.ask_to_cancel(job_id)
    bench.supervisor.work()
    assert bench.job(job_id).status == "cancelled"
    assert len(bench.made_file(job_id, "output_file_id")) == 5


def test_lines_that_were_not_answered_in_time_have_expired(bench: Bench, worker: EchoWorker) -> None:
    job_id = bench.create_openai(*chat_lines(40))
    thread = bench.work_in_background()
    worker.allow(2)
    until(lambda: len(bench.output(job_id)) == 2)
    bench.move("pause", job_id)
    thread.join()
    with bench.database.write() as session:
        job = session.get_one(Job, job_id)
        job.parameters = {**job.parameters, "openai": {**job.parameters["openai"], "expires_at": 1}}
    bench.move("resume", job_id)
    bench.supervisor.work()
    job = bench.job(job_id)
    assert (job.status, job.error_code) == ("failed", "batch_expired")
    assert job.result is not None
    assert (job.result["answered"], job.result["failed"]) == (2, 38)
    assert len(bench.made_file(job_id, "output_file_id")) == 2
    late = bench.made_file(job_id, "error_file_id")
    assert len(late) == 38
    assert late[0]["response"] is None
    assert late[0]["error"]["code"] == "batch_expired"
    answered = {line["custom_id"] for line in bench.made_file(job_id, "output_file_id")}
    assert answered | {line["custom_id"] for line in late} == {f"q{number}" for number in range(1, 41)}


def test_the_files_expire_when_they_were_asked_to(bench: Bench, worker: EchoWorker) -> None:
    job_id = bench.create_openai(*chat_lines(1), output_expires_after_seconds=3600)
    worker.allow(1)
    bench.supervisor.work()
    with bench.database.read() as session:
        document = DocumentRepository(session).get("default", (bench.job(job_id).result or {})["output_file_id"])
    assert document.expires_at is not None
    assert abs(document.expires_at - time.time() - 3600) < 60


def test_a_batch_s_whole_life_with_openai_s_client(bench: Bench, worker: EchoWorker) -> None:
    with TestClient(create_app(bench.settings), base_url="http://localhost") as http:
        client = OpenAI(
            base_url="http://localhost/v1", api_key="unused", _strict_response_validation=True, max_retries=0,
            http_client=http,
        )  # fmt: skip
        lines = "".join(f"{json.dumps(line)}\n" for line in (*chat_lines(3), chat_line("bad", "x", temperature=9)))
        given = client.files.create(file=("requests.jsonl", lines.encode()), purpose="batch")
        batch = client.batches.create(
            input_file_id=given.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"team": "a"}
        )
        assert batch.status == "validating"
        worker.allow(3)
        bench.supervisor.work()
        done = client.batches.retrieve(batch.id)
        assert (done.status, done.model, done.metadata) == ("completed", "demo", {"team": "a"})
        assert done.request_counts is not None
        assert done.request_counts.to_dict() == {"total": 4, "completed": 3, "failed": 1}
        assert done.usage is not None
        assert (done.usage.input_tokens, done.usage.output_tokens) == (6, 9)
        assert done.output_file_id is not None
        assert done.error_file_id is not None
        answers = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
        assert {
            line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in answers
        } == {f"q{number}": f"Question {number}" for number in (1, 2, 3)}
        assert client.files.retrieve(done.error_file_id).purpose == "batch_output"
        assert '"custom_id": "bad"' in client.files.content(done.error_file_id).text
