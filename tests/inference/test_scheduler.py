from __future__ import annotations

from pathlib import Path

from worker.inference.scheduler import Scheduler
from worker.inference.sequence import AdapterFiles, SamplingParameters, Sequence

A, B, C = (AdapterFiles(key, Path(key)) for key in "abc")


def waiting(id: str, adapter: AdapterFiles | None = None, *, length: int = 4, deadline: float = 1e9) -> Sequence:
    return Sequence(id, [1] * length, SamplingParameters(), frozenset(), adapter, deadline=deadline)


def scheduler_of(*sequences: Sequence, **limits: int) -> Scheduler:
    scheduler = Scheduler(**limits)
    for sequence in sequences:
        scheduler.add(sequence)
    return scheduler


def admitted(scheduler: Scheduler) -> list[str]:
    batch = scheduler.admit()
    return [sequence.id for sequence in batch.sequences] if batch else []


def test_a_batch_shares_an_adapter_and_the_longest_waiting_comes_first() -> None:
    scheduler = scheduler_of(waiting("1", A), waiting("2", B), waiting("3", A), waiting("4"))
    assert [admitted(scheduler) for _ in range(4)] == [["1", "3"], ["2"], ["4"], []]


def test_no_more_run_than_there_are_places() -> None:
    scheduler = scheduler_of(*(waiting(str(number)) for number in range(5)), max_batch_size=3)
    assert admitted(scheduler) == ["0", "1", "2"]
    assert admitted(scheduler) == []
    scheduler.abort("1")
    assert admitted(scheduler) == ["3"]


def test_no_more_adapters_run_than_may_be_loaded() -> None:
    scheduler = scheduler_of(waiting("1", A), waiting("2", B), waiting("3", C), max_adapters=2)
    assert [admitted(scheduler), admitted(scheduler), admitted(scheduler)] == [["1"], ["2"], []]
    scheduler.abort("1")
    assert admitted(scheduler) == ["3"]


def test_one_prefill_stays_within_its_budget() -> None:
    scheduler = scheduler_of(waiting("1"), waiting("2", length=40), waiting("3"), max_prefill_tokens=50)
    assert [admitted(scheduler), admitted(scheduler), admitted(scheduler)] == [["1"], ["2"], ["3"]]


def test_running_batches_take_turns_and_a_new_one_comes_first() -> None:
    scheduler = scheduler_of(waiting("1", A), waiting("2", B))
    first, second = scheduler.admit(), scheduler.admit()
    assert [scheduler.schedule() for _ in range(4)] == [second, first, second, first]


def test_a_suspect_runs_alone() -> None:
    suspect = waiting("2")
    suspect.is_alone = True
    scheduler = scheduler_of(waiting("1"), suspect, waiting("3"))
    assert [admitted(scheduler), admitted(scheduler)] == [["1", "3"], ["2"]]
    batch = scheduler.schedule()
    assert batch is not None
    assert scheduler.partner_of(batch) is None


def test_the_late_leave_the_queue_and_the_batches() -> None:
    scheduler = scheduler_of(waiting("1", deadline=10.0), waiting("2", deadline=20.0), waiting("3", A, deadline=10.0))
    scheduler.admit()
    assert [sequence.id for sequence in scheduler.expire(10.0)] == ["3", "1"]
    assert scheduler.num_running == 1
    assert not scheduler.expire(10.0)
