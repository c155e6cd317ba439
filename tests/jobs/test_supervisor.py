"""The supervisor runs each job in a child, and every way a child can end leaves the right row behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path

import pytest
from sqlalchemy import update

from shared.errors import DatabaseUnavailable
from shared.models import Job
from shared.repositories.jobs import JobRepository
from tests.jobs.conftest import Bench
from tests.jobs.runners import starts
from tests.waiting import until
from worker.jobs.child import EXIT_YIELDED, forkserver_for, live_until
from worker.jobs.oom_kills import oom_kills


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter when it goes while we read
        return False


def test_a_job_that_succeeds_is_run_once(bench: Bench) -> None:
    job_id = bench.create("succeed")
    bench.supervisor.work()
    bench.supervisor.work()
    assert bench.job(job_id).status == "succeeded"
    assert len(starts(bench.settings.data_dir, job_id)) == 1


def test_two_deliveries_of_one_message_run_the_job_once(bench: Bench) -> None:
    job_id = bench.create("succeed")
    threads = [bench.work_in_background(), bench.work_in_background()]
    for thread in threads:
        thread.join()
    assert len(starts(bench.settings.data_dir, job_id)) == 1


def test_a_job_that_has_succeeded_may_tidy_up(bench: Bench) -> None:
    job_id = bench.create("tidy_up")
    bench.supervisor.work()
    assert bench.job(job_id).status == "succeeded"
    assert (bench.settings.data_dir / f"{job_id}.end").exists()


def test_an_expected_failure_ends_the_job_with_its_code_and_no_second_attempt(bench: Bench) -> None:
    job_id = bench.create("fail")
    bench.supervisor.work()
    job = bench.job(job_id)
    assert (job.status, job.error_code, job.num_crashes) == ("failed", "nothing_to_learn", 0)
    assert job.error_detail
    assert len(starts(bench.settings.data_dir, job_id)) == 1


@pytest.mark.parametrize("behaviour", ["kill_itself", "raise_surprise"])
def test_a_job_that_always_crashes_is_failed_after_three_attempts(bench: Bench, behaviour: str) -> None:
    job_id, other = bench.create(behaviour), bench.create("succeed")
    bench.supervisor.work()
    job = bench.job(job_id)
    assert (job.status, job.error_code) == ("failed", "trainer_crashed")
    assert len(starts(bench.settings.data_dir, job_id)) == 3
    assert bench.job(other).status == "succeeded"


def test_a_job_that_crashes_once_is_run_again_and_succeeds(bench: Bench) -> None:
    job_id = bench.create("crash_once")
    bench.supervisor.work()
    job = bench.job(job_id)
    assert (job.status, job.num_crashes, job.attempt) == ("succeeded", 1, 2)


@pytest.mark.parametrize(
    ("counts", "number", "words"),
    [
        ([0, 1, 1, 2, 2, 2], 2, "ran out of memory, so its kernel killed"),
        ([4, 4, 4, 4, 4, 4], 0, "signal 9, and not by the kernel"),
        ([None] * 6, 2, "most often because"),
    ],
)
def test_an_attempt_knows_how_many_before_it_the_kernel_killed_for_memory(
    bench: Bench, counts: list[int | None], number: int, words: str
) -> None:
    told = iter(counts)
    bench.supervisor.oom_kills = lambda: next(told)
    job_id = bench.create("say_memory_deaths")
    bench.supervisor.work()
    assert bench.job(job_id).result == {"memory_deaths": number}
    with bench.database.read() as session:
        messages = [event.message for event in JobRepository(session).events(job_id, type="message")]
    assert len(messages) == 2
    assert all(words in message for message in messages)


def test_the_kernels_count_is_read_where_there_is_one(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    assert oom_kills(vmstat) is None
    vmstat.write_text("nr_free_pages 17\n")
    assert oom_kills(vmstat) is None
    vmstat.write_text("nr_free_pages 17\noom_kill 3\n")
    assert oom_kills(vmstat) == 3


def test_a_job_goes_before_others_when_the_machine_runs_out_of_memory(bench: Bench) -> None:
    job_id = bench.create("hang")
    thread = bench.work_in_background()
    bench.wait_for(job_id, "hanging")
    (pid,) = starts(bench.settings.data_dir, job_id)
    score = Path(f"/proc/{pid}/oom_score_adj").read_text()
    bench.move("cancel", job_id)
    thread.join(10)
    assert int(score) == 500


def test_cancel_ends_a_running_child_at_once(bench: Bench) -> None:
    job_id = bench.create("hang")
    thread = bench.work_in_background()
    bench.wait_for(job_id, "hanging")
    (pid,) = starts(bench.settings.data_dir, job_id)
    bench.move("cancel", job_id)
    thread.join(10)
    assert not thread.is_alive()
    assert not is_running(pid)
    assert bench.job(job_id).status == "cancelled"


def test_pause_lets_the_child_stop_by_itself_and_resume_goes_on(bench: Bench) -> None:
    job_id = bench.create("work_until_stopped")
    thread = bench.work_in_background()
    bench.wait_for(job_id, "progress")
    bench.move("pause", job_id)
    thread.join(10)
    assert bench.job(job_id).status == "paused"
    bench.move("resume", job_id)
    bench.supervisor.work()
    job = bench.job(job_id)
    assert (job.status, job.attempt, job.num_crashes) == ("succeeded", 2, 0)


def test_a_worker_that_stops_hands_its_job_back_without_counting_a_crash(bench: Bench) -> None:
    job_id = bench.create("work_until_stopped")
    thread = bench.work_in_background()
    bench.wait_for(job_id, "progress")
    bench.stopping.set()
    thread.join(10)
    job = bench.job(job_id)
    assert (job.status, job.num_crashes) == ("queued", 0)


def test_a_child_that_does_not_stop_when_asked_is_killed(bench: Bench) -> None:
    bench.supervisor.settings = bench.settings.model_copy(update={"stop_timeout_seconds": 0.2})
    job_id = bench.create("hang")
    thread = bench.work_in_background()
    bench.wait_for(job_id, "hanging")
    bench.move("pause", job_id)
    thread.join(10)
    assert bench.job(job_id).status == "paused"
    assert not is_running(starts(bench.settings.data_dir, job_id)[0])


def test_a_job_whose_process_cannot_start_is_tried_again_and_then_failed(bench: Bench) -> None:
    broken = "tests.jobs.broken_runner:run"
    bench.supervisor.runner, bench.supervisor.processes = broken, forkserver_for(broken)
    job_id = bench.create("succeed")
    bench.supervisor.work()
    assert (bench.job(job_id).status, bench.job(job_id).error_code) == ("failed", "trainer_crashed")


def test_a_job_without_progress_is_stopped_and_tried_again(bench: Bench) -> None:
    bench.supervisor.settings = bench.settings.model_copy(update={"stall_timeout_seconds": 0.3, "max_crashes": 2})
    job_id = bench.create("hang")
    bench.supervisor.work()
    job = bench.job(job_id)
    assert (job.status, job.num_crashes) == ("failed", 2)
    assert "no progress" in str(job.error_detail)


def test_a_trainer_ends_with_its_lease_while_its_supervisor_waits_for_the_database(bench: Bench) -> None:
    bench.supervisor.settings = bench.settings.model_copy(update={"lease_seconds": 1.0, "heartbeat_seconds": 0.1})
    job_id = bench.create("hang")
    thread = bench.work_in_background()
    bench.wait_for(job_id, "hanging")
    (pid,) = starts(bench.settings.data_dir, job_id)
    with bench.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(priority=1))  # and keeps the row locked
        until(lambda: not is_running(pid), timeout_seconds=5)
    until(lambda: bench.job(job_id).attempt == 2)
    assert bench.job(job_id).num_crashes == 0
    bench.move("cancel", job_id)
    thread.join(20)


def test_a_trainer_ends_with_its_lease_when_its_supervisor_is_frozen() -> None:
    deadlines, to_child = Pipe(duplex=False)
    trainer = multiprocessing.get_context("spawn").Process(target=live_until, args=(deadlines,))
    trainer.start()
    to_child.send(time.monotonic() + 60.0)
    to_child.send(time.monotonic() + 0.5)  # and is not heard of again
    trainer.join(30)
    assert trainer.exitcode == EXIT_YIELDED


def _take_over(bench: Bench, job_id: str) -> None:
    """As another worker does."""
    with bench.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(attempt=7, progress={"step": -1}))


def test_a_worker_frozen_past_its_lease_writes_nothing_when_it_wakes(bench: Bench) -> None:
    job_id = bench.create("work_until_stopped")
    thread = bench.work_in_background()
    bench.wait_for(job_id, "progress")
    (pid,) = starts(bench.settings.data_dir, job_id)
    for _ in range(20):
        os.kill(pid, signal.SIGSTOP)
        try:
            _take_over(bench, job_id)
            break
        except DatabaseUnavailable:  # frozen in the midst of writing, with SQLite's lock in its hands
            os.kill(pid, signal.SIGCONT)
    with suppress(ProcessLookupError):  # its supervisor may have seen the takeover first, and ended it
        os.kill(pid, signal.SIGCONT)
    thread.join(10)
    job = bench.job(job_id)
    assert (job.status, job.attempt, job.progress) == ("running", 7, {"step": -1})
    assert not is_running(pid)


def test_the_end_of_a_setup_job_rings_for_the_training_that_waits(bench: Bench) -> None:
    import redis

    setup = bench.create("succeed", kind="setup")
    bench.create("succeed", waits_for=setup)
    bench.supervisor.kind = "setup"
    bench.supervisor.work()
    with redis.Redis.from_url(bench.settings.resolved_redis_url) as client:
        assert client.llen("training") == 1


def test_a_worker_takes_the_jobs_of_all_its_kinds_in_their_order_each_with_its_own_runner(bench: Bench) -> None:
    bench.supervisor.others = {"export": "tests.jobs.runners:run", "import": "tests.jobs.runners:run_import"}
    wanted = [bench.create("succeed", kind=kind) for kind in ("import", "training", "export")]
    other = bench.create("succeed", kind="batch")
    with bench.database.write() as session:  # SQLite's clock counts milliseconds: they may have the same one
        for number, job_id in enumerate(wanted):
            session.get_one(Job, job_id).created_at += number
    bench.supervisor.work()
    done = [bench.job(job_id) for job_id in wanted]
    assert [job.result for job in done] == [{"imported": True}, {"done": True}, {"done": True}]
    assert [job.started_at for job in done] == sorted(job.started_at or 0.0 for job in done)
    assert bench.job(other).status == "queued"
