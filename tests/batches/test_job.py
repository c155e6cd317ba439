"""A batch job under its supervisor: killed, paused, cancelled, and each line answered once."""

from __future__ import annotations

import os
import signal

import psutil
import redis

from shared.repositories.jobs import JobRepository
from shared.streams import BACKGROUND_QUESTIONS, replies_of
from tests.batches.conftest import Bench, EchoWorker
from tests.batches.files import questions
from tests.jobs.runners import starts
from tests.waiting import until


def lines_of(bench: Bench, job_id: str) -> list[int]:
    return sorted(line["line"] for line in bench.output(job_id))


def test_a_batch_that_is_killed_in_the_middle_answers_every_line_once(bench: Bench, worker: EchoWorker) -> None:
    job_id = bench.create(*questions(100))
    thread = bench.work_in_background()
    worker.allow(40)
    until(lambda: len(bench.output(job_id)) == 40)
    os.kill(starts(bench.settings.data_dir, job_id)[0], signal.SIGKILL)
    worker.allow(1000)
    thread.join()
    job = bench.job(job_id)
    assert (job.status, job.attempt, job.num_crashes) == ("succeeded", 2, 1)
    assert job.result == {
        "lines": 100, "answered": 100, "failed": 0, "prompt_tokens": 200, "completion_tokens": 300,
    }  # fmt: skip
    assert (job.progress["step"], job.progress["total_steps"]) == (100, 100)
    assert lines_of(bench, job_id) == list(range(1, 101))
    assert all(line["answer"] == f"Question {line['line']}" for line in bench.output(job_id))
    assert sorted(worker.answered) == sorted(f"{job_id}.{number}" for number in range(1, 101))  # nothing twice
    with redis.Redis.from_url(bench.settings.resolved_redis_url) as client:
        assert (client.xlen(BACKGROUND_QUESTIONS), client.exists(replies_of(job_id))) == (0, 0)


def test_a_paused_batch_rests_and_goes_on_where_it_stopped(bench: Bench, worker: EchoWorker) -> None:
    job_id = bench.create(*questions(60))
    thread = bench.work_in_background()
    worker.allow(20)
    until(lambda: len(bench.output(job_id)) == 20)
    bench.move("pause", job_id)
    thread.join()
    assert bench.job(job_id).status == "paused"
    assert psutil.pid_exists(starts(bench.settings.data_dir, job_id)[0]) is False
    worker.allow(1000)
    bench.move("resume", job_id)
    bench.supervisor.work()
    assert (bench.job(job_id).status, bench.job(job_id).num_crashes) == ("succeeded", 0)
    assert lines_of(bench, job_id) == list(range(1, 61))
    assert len(worker.answered) == 60


def test_a_cancelled_batch_keeps_what_it_has_and_asks_no_more(bench: Bench, worker: EchoWorker) -> None:
    job_id = bench.create(*questions(1000))
    thread = bench.work_in_background()
    worker.allow(5)
    until(lambda: len(bench.output(job_id)) == 5)
    bench.move("cancel", job_id)
    thread.join()
    assert (bench.job(job_id).status, len(bench.output(job_id))) == ("cancelled", 5)
    assert not psutil.pid_exists(starts(bench.settings.data_dir, job_id)[0])


def test_a_line_s_own_error_does_not_fail_the_batch(bench: Bench, worker: EchoWorker) -> None:
    job_id = bench.create({"query": "fine"}, {"query": "x", "model": "nobody/knows"}, "{", {"query": "y", "version": 1})
    worker.allow(10)
    bench.supervisor.work()
    job = bench.job(job_id)
    assert (job.status, job.result) == ("succeeded", {
        "lines": 4, "answered": 1, "failed": 3, "prompt_tokens": 2, "completion_tokens": 3,
    })  # fmt: skip
    codes = {line["line"]: (line["error"] or {}).get("code") for line in bench.output(job_id)}
    assert codes == {1: None, 2: "model_not_allowed", 3: "invalid_request", 4: "invalid_request"}


def test_a_batch_whose_document_is_gone_fails_and_says_so(bench: Bench) -> None:
    job_id = bench.create({"query": "x"})
    bench.storage.document("file-1").unlink()
    bench.supervisor.work()
    assert (bench.job(job_id).status, bench.job(job_id).error_code) == ("failed", "document_not_found")


def test_a_batch_says_that_it_waits_for_a_worker(bench: Bench, worker: EchoWorker) -> None:
    job_id = bench.create({"query": "x"})
    worker.allow(1)
    bench.supervisor.work()
    with bench.database.read() as session:
        messages = [event.message for event in JobRepository(session).events(job_id)]
    assert "No inference worker is running; the batch waits for one" in messages
