from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.inference.scheduler import Admission, Chunk, Scheduler
from worker.inference.sequence import AdapterFiles, SamplingParameters, Sequence

A, B, C = (AdapterFiles(key, Path(key)) for key in "abc")


def waiting(id: str, adapter: AdapterFiles | None = None, *, length: int = 4, **more: Any) -> Sequence:
    """Prompts of different sequences share no beginning."""
    prompt = [1000 * int(id) + position for position in range(length)]
    return Sequence(id, prompt, SamplingParameters(), frozenset(), adapter, **more)


def scheduler_of(*sequences: Sequence, **options: Any) -> Scheduler:
    scheduler = Scheduler(**options)
    for sequence in sequences:
        scheduler.add(sequence)
    return scheduler


def admissions(scheduler: Scheduler, *, not_ready: str = "") -> list[Admission]:
    found = []
    while (admission := scheduler.admit(lambda one: one.id not in not_ready.split())) is not None:
        found.append(admission)
    return found


def admitted(scheduler: Scheduler, *, not_ready: str = "") -> list[str]:
    return [admission.sequence.id for admission in admissions(scheduler, not_ready=not_ready)]


def step(scheduler: Scheduler) -> list[tuple[str, int, int]]:
    """One step as the engine makes it: id, tokens held before and tokens computed, of each chunk."""
    chunks = scheduler.schedule()
    scheduler.advance(chunks)
    for chunk in chunks:
        if chunk.is_last:
            chunk.sequence.tokens.append(7)
    return [(chunk.sequence.id, chunk.start, len(chunk.tokens)) for chunk in chunks]


def test_every_free_slot_takes_a_sequence_and_a_freed_one_the_next() -> None:
    scheduler = scheduler_of(*(waiting(str(number)) for number in range(5)), num_slots=3)
    assert admitted(scheduler) == ["0", "1", "2"]
    assert scheduler.num_waiting == 2
    scheduler.abort("1")
    assert admitted(scheduler) == ["3"]


def test_no_more_adapters_run_than_may_be_loaded_and_others_pass() -> None:
    scheduler = scheduler_of(
        waiting("1", A), waiting("2", B), waiting("3", C), waiting("4", A), waiting("5"), max_adapters=2
    )
    assert sorted(admitted(scheduler)) == ["1", "2", "4", "5"]
    scheduler.abort("2")
    assert admitted(scheduler) == ["3"]


def test_a_sequence_whose_adapter_is_being_read_holds_up_nobody() -> None:
    scheduler = scheduler_of(waiting("1", A), waiting("2", B), waiting("3"))
    assert sorted(admitted(scheduler, not_ready="1")) == ["2", "3"]
    assert admitted(scheduler) == ["1"]


def test_the_project_and_then_the_adapter_with_the_fewest_running_is_next() -> None:
    greedy = [waiting(str(number), A, project_id="greedy") for number in range(4)]
    other = waiting("8", B, project_id="greedy")
    modest = waiting("9", A, project_id="modest")
    scheduler = scheduler_of(*greedy, other, modest, num_slots=4)
    assert admitted(scheduler) == ["0", "9", "8", "1"]


def test_background_sequences_wait_until_nobody_else_does() -> None:
    scheduler = scheduler_of(waiting("1", is_background=True), waiting("2"), waiting("3"), num_slots=2)
    assert admitted(scheduler) == ["2", "3"]
    scheduler.abort("2")
    assert admitted(scheduler) == ["1"]


def test_a_background_sequence_does_not_pass_one_whose_adapter_is_being_read() -> None:
    scheduler = scheduler_of(waiting("1", is_background=True), waiting("2", A), num_slots=1)
    assert admitted(scheduler, not_ready="2") == []
    assert admitted(scheduler) == ["2"]


def test_a_long_prompt_comes_in_chunks_while_others_answer() -> None:
    scheduler = scheduler_of(waiting("1", length=4), max_step_tokens=10)
    admitted(scheduler)
    assert step(scheduler) == [("1", 0, 4)]
    scheduler.add(waiting("2", length=25))
    admitted(scheduler)
    assert [step(scheduler) for _ in range(4)] == [
        [("1", 4, 1), ("2", 0, 9)],
        [("1", 5, 1), ("2", 9, 9)],
        [("1", 6, 1), ("2", 18, 7)],
        [("1", 7, 1), ("2", 25, 1)],
    ]


def test_a_prompt_that_must_be_whole_waits_for_a_step_of_its_own() -> None:
    scheduler = scheduler_of(waiting("1", length=8), waiting("2", length=25), max_step_tokens=10, splits_prompts=False)
    admitted(scheduler)
    assert [step(scheduler), step(scheduler)] == [[("1", 0, 8)], [("1", 8, 1)]]
    scheduler.abort("1")
    assert step(scheduler) == [("2", 0, 25)]


def test_an_encoder_decoder_caches_its_answer_and_pays_for_its_prompt() -> None:
    scheduler = scheduler_of(waiting("1", length=8), waiting("2", length=8), max_step_tokens=10, decoder_start=0)
    admitted(scheduler)
    assert [step(scheduler) for _ in range(3)] == [
        [("1", 0, 1)],
        [("1", 1, 1), ("2", 0, 1)],
        [("1", 2, 1), ("2", 1, 1)],
    ]


def test_a_prompt_that_begins_like_an_answered_one_takes_over_its_slot() -> None:
    first = waiting("1", length=20)
    scheduler = scheduler_of(first, num_slots=4)
    admitted(scheduler)
    step(scheduler)
    step(scheduler)
    scheduler.finish([first])
    scheduler.add(Sequence("2", [*first.prompt, 7, 8, 9], SamplingParameters(), frozenset()))
    (admission,) = admissions(scheduler)
    assert (admission.slot, admission.source) == (0, None)
    assert step(scheduler) == [("2", 21, 2)]
    assert scheduler.num_reused_tokens == 21


def test_a_prompt_that_begins_like_a_running_one_copies_it() -> None:
    first = waiting("1", length=40)
    scheduler = scheduler_of(first)
    admitted(scheduler)
    step(scheduler)
    scheduler.add(Sequence("2", first.prompt[:], SamplingParameters(), frozenset()))
    (admission,) = admissions(scheduler)
    assert (admission.slot, admission.source, admission.num_copied) == (1, 0, 39)
    assert step(scheduler) == [("1", 40, 1), ("2", 39, 1)]


def test_a_prompt_whose_beginning_is_being_computed_waits_for_it() -> None:
    first = waiting("1", length=40)
    scheduler = scheduler_of(first, Sequence("2", first.prompt[:], SamplingParameters(), frozenset()))
    assert admitted(scheduler) == ["1"]
    step(scheduler)
    assert admitted(scheduler) == ["2"]


def test_no_beginning_is_shared_between_adapters_or_with_a_damaged_slot() -> None:
    first = waiting("1", A, length=40)
    scheduler = scheduler_of(first)
    admitted(scheduler)
    step(scheduler)
    scheduler.add(Sequence("2", first.prompt[:], SamplingParameters(), frozenset(), B))
    assert admissions(scheduler)[0].num_copied == 0
    assert scheduler.finish([first], is_damaged=True) == [0]
    scheduler.add(Sequence("3", first.prompt[:], SamplingParameters(), frozenset(), A))
    admitted(scheduler)
    assert scheduler.num_reused_tokens == 0


def test_reuse_can_be_switched_off() -> None:
    first = waiting("1", length=40)
    scheduler = scheduler_of(first, reuses_prefixes=False)
    admitted(scheduler)
    step(scheduler)
    scheduler.finish([first])
    scheduler.add(Sequence("2", first.prompt[:], SamplingParameters(), frozenset()))
    admitted(scheduler)
    assert step(scheduler) == [("2", 0, 40)]


def test_a_suspect_runs_alone_and_the_others_go_on_between() -> None:
    suspect = waiting("2")
    suspect.is_alone = True
    scheduler = scheduler_of(waiting("1"), suspect, waiting("3"))
    admitted(scheduler)
    steps = [[id for id, _, _ in step(scheduler)] for _ in range(4)]
    assert steps == [["2"], ["1", "3"], ["2"], ["1", "3"]]


def test_the_late_leave_the_queue_and_their_slots() -> None:
    scheduler = scheduler_of(waiting("1", deadline=10.0), waiting("2", deadline=20.0), num_slots=2)
    admitted(scheduler)
    scheduler.add(waiting("3", A, deadline=10.0))
    assert [sequence.id for sequence in scheduler.expire(10.0)] == ["3", "1"]
    assert [sequence.id for sequence in scheduler.running] == ["2"]
    assert not scheduler.expire(10.0)


def test_a_chunk_of_a_sequence_that_has_left_changes_nothing() -> None:
    scheduler = scheduler_of(waiting("1"))
    admitted(scheduler)
    chunks = scheduler.schedule()
    scheduler.abort("1")
    scheduler.advance(chunks)
    assert not scheduler.has_work
    assert isinstance(chunks[0], Chunk)
