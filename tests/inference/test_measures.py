"""What the heartbeat carries is what happened."""

from __future__ import annotations

from dataclasses import dataclass

from shared.measures import EngineMeasures, measures_in
from shared.messages import Answer, Question
from tests.inference.test_recording import answer, question
from worker.inference.measures import AnswerTimes, Measures


@dataclass(frozen=True)
class Statistics:
    """An engine's, of another version: one field is new and some are missing."""

    num_running: int = 3
    num_steps: int = 10
    num_tokens: int = 80
    num_of_tomorrow: int = 1


class Engine:
    statistics = Statistics()


def counted(measures: Measures) -> dict[float, int]:
    """Queue times by the bound that they stay below, as far as there are any."""
    histogram = measures.snapshot().queue_seconds
    bounds = [*histogram.bounds, float("inf")]
    return {bound: count for bound, count in zip(bounds, histogram.counts, strict=True) if count}


def test_times_fall_into_the_bucket_whose_bound_they_do_not_exceed() -> None:
    measures = Measures()
    for queue_ms in (0.0, 5.0, 5.1, 200_000.0):
        measures.answered(question(), answer(queue_ms=queue_ms), AnswerTimes(1, 0.0, 0.0))
    assert counted(measures) == {0.005: 2, 0.01: 1, float("inf"): 1}
    assert measures.snapshot().queue_seconds.total == 200.0101


def test_the_time_per_token_is_that_between_tokens_and_missing_where_there_is_one() -> None:
    recorded: list[float | None] = []

    def record(question: Question, answer: Answer, token_ms: float | None) -> None:
        recorded.append(token_ms)

    measures = Measures(record)
    for times in (AnswerTimes(5, 10.0, 12.0), AnswerTimes(1, 10.0, 12.0), AnswerTimes(0, None, 12.0)):
        measures.answered(question(), answer(), times)
    assert recorded == [500.0, None, None]
    histogram = measures.snapshot().token_seconds
    assert (sum(histogram.counts), histogram.total) == (1, 0.5)


def test_ends_are_counted_by_kind() -> None:
    measures = Measures(num_unrecorded=lambda: 7)
    measures.answered(question(), answer(fallback=True), AnswerTimes(7, 0.0, 1.0))
    measures.answered(question(), answer(finish_reason="stop"), AnswerTimes(7, 0.0, 1.0))
    measures.refused("answer_timeout")
    measures.aborted()
    seen = measures.snapshot()
    assert (seen.num_answers, seen.num_refusals) == ({"length": 1, "stop": 1}, {"answer_timeout": 1})
    assert (seen.num_fallbacks, seen.num_aborts, seen.num_unrecorded) == (1, 1, 7)
    assert (seen.prompt_tokens, seen.completion_tokens) == (10, 14)


def test_a_batchs_answers_count_but_not_in_the_times_and_get_no_row() -> None:
    recorded: list[str] = []

    def record(question: Question, answer: Answer, token_ms: float | None) -> None:
        recorded.append(question.id)

    measures = Measures(record)
    measures.answered(question(is_background=True), answer(), AnswerTimes(1, 0.0, 0.0))
    assert recorded == []
    assert counted(measures) == {}
    assert measures.snapshot().num_answers == {"length": 1}


def test_engines_show_what_they_count() -> None:
    measures = Measures()
    measures.look([("demo", Engine())])
    assert measures.snapshot().engines == {"demo": EngineMeasures(num_running=3, num_steps=10, num_tokens=80)}


def test_measures_arrive_as_they_left_and_those_of_another_version_are_passed_over() -> None:
    measures = Measures()
    measures.look([("demo", Engine())])
    measures.refused("queue_full")
    sent = measures.snapshot()
    assert measures_in({"measures": sent.model_dump(mode="json") | {"num_of_tomorrow": 1}}) == sent
    assert measures_in({}) is None
    assert measures_in({"measures": {"queue_seconds": 3}}) is None
