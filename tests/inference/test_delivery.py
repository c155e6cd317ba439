"""What the stream promises: slots are freed, late questions are not computed, and what was given is measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.messages import Refusal
from shared.repositories.answers import AnswerRepository
from shared.settings import Settings
from shared.streams import ABORTS
from tests.inference.serving import Serving, serving
from tests.waiting import until
from worker.inference.models import LoadedModel, load_base
from worker.inference.questions import Delivery, QuestionStream

MANY_TOKENS = 80


@pytest.fixture
def settings(tmp_path: Path, redis_url: str, gpt2: Path) -> Settings:
    return Settings(data_dir=tmp_path, redis_url=redis_url, base_model=str(gpt2))


@pytest.fixture
def served(settings: Settings) -> Iterator[Serving]:
    with serving(settings) as served:
        yield served


class HookedQuestions(QuestionStream):
    """Calls `before_pull` where an abort is seen latest: the turn has just looked for aborts."""

    def __init__(self, client: Any, worker_id: str, claim_after_seconds: float) -> None:
        super().__init__(client, worker_id, claim_after_seconds)
        self.before_pull: Callable[[], None] = lambda: None

    def pull(self, count: int, wait_seconds: float | None, **options: bool) -> list[Delivery]:
        self.before_pull()
        return super().pull(count, wait_seconds, **options)


def steps_after_abort(served: Serving, question_id: str, abort: Callable[[], bool]) -> int:
    """Steps that the question has a part in once it is aborted; another question keeps the engine going.

    `abort` is called after each of the question's steps until it says that it has aborted it.
    """
    aborted_at: list[int] = []

    def watch(num_steps: int) -> None:
        if not aborted_at and question_id in served.engine.steps[-1] and abort():
            aborted_at.append(num_steps)

    served.engine.after_step = watch
    served.client.answer("Hi", num_tokens=MANY_TOKENS)
    until(lambda: not served.engine.has_work)
    return sum(question_id in step for step in served.engine.steps[aborted_at[0] :])


def test_a_question_that_is_aborted_during_a_step_has_no_part_in_more_than_two_others(served: Serving) -> None:
    served.client.answer()

    def abort() -> bool:
        return bool(served.client.redis.publish(ABORTS, aborted))

    aborted = served.client.ask("x", num_tokens=MANY_TOKENS)
    assert steps_after_abort(served, aborted, abort) <= 2
    assert served.measures.snapshot().num_aborts == 1


def test_a_question_that_is_aborted_just_after_the_worker_looked_is_freed_within_two_steps(settings: Settings) -> None:
    streams: list[HookedQuestions] = []

    def hooked(client: Any, worker_id: str, claim_after_seconds: float) -> HookedQuestions:
        streams.append(HookedQuestions(client, worker_id, claim_after_seconds))
        return streams[0]

    with serving(settings, hooked) as served:
        served.client.answer()
        is_wanted = threading.Event()

        def publish() -> None:
            if is_wanted.is_set():
                is_wanted.clear()
                served.client.redis.publish(ABORTS, aborted)

        def abort() -> bool:
            is_wanted.set()
            return True

        streams[0].before_pull = publish
        aborted = served.client.ask("x", num_tokens=MANY_TOKENS)
        assert steps_after_abort(served, aborted, abort) <= 2


def test_a_question_whose_deadline_passed_while_it_waited_is_refused_and_never_computed(settings: Settings) -> None:
    settings = settings.model_copy(update={"max_batch_size": 1})
    with serving(settings) as served:
        served.client.answer()
        late: list[str] = []

        def ask_in_the_middle(num_steps: int) -> None:
            """The one slot is taken; by the time that it is free the deadline has passed."""
            if not late:
                late.append(served.client.ask(deadline=time.time()))

        served.engine.after_step = ask_in_the_middle
        served.client.answer("Hi", num_tokens=MANY_TOKENS)
        refusal = served.client.final(late[0])
    assert isinstance(refusal, Refusal)
    assert refusal.code == "answer_timeout"
    assert late[0] not in served.engine.submitted


def test_a_question_whose_deadline_passes_while_its_model_loads_is_refused_then_and_never_computed(
    settings: Settings,
) -> None:
    may_load = threading.Event()

    def load(name: str, settings: Settings) -> LoadedModel:
        may_load.wait()
        return load_base(name, settings)

    with serving(settings, load=load) as served:
        late = served.client.ask(deadline=time.time() + 0.2)
        refusal = served.client.final(late)
        may_load.set()
        served.client.answer()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "answer_timeout"
    assert late not in served.engine.submitted


def test_what_a_worker_answers_is_measured_and_recorded(served: Serving) -> None:
    answer = served.client.answer("Hi", num_tokens=5)
    served.client.final(served.client.ask(deadline=time.time()))
    until(lambda: served.recorder.num_dropped == 0 and len(recorded(served)) == 1)
    seen = served.measures.snapshot()
    assert (seen.num_answers, seen.num_refusals) == ({"length": 1}, {"answer_timeout": 1})
    assert (seen.prompt_tokens, seen.completion_tokens) == (answer.usage.prompt_tokens, 5)
    assert [sum(one.counts) for one in (seen.queue_seconds, seen.first_token_seconds, seen.token_seconds)] == [1, 1, 1]
    assert seen.queue_seconds.total * 1000 == pytest.approx(answer.queue_ms)
    (row,) = recorded(served)
    assert row == (answer.question_id, answer.quality.mean_logprob, answer.first_token_ms, "length")


def test_the_engines_statistics_are_looked_at_while_it_works_and_when_it_rests(served: Serving) -> None:
    served.client.answer("Hi", num_tokens=5)
    steps = served.engine.statistics.num_steps
    assert steps >= 5

    def is_seen() -> bool:
        engines = served.measures.snapshot().engines
        return [(name, one.num_steps) for name, one in engines.items()] == [(served.settings.base_model, steps)]

    until(is_seen)


def recorded(served: Serving) -> list[tuple[str, float, float, str]]:
    with served.database.read() as session:
        rows = AnswerRepository(session).latest("default", 10)
    return [(row.id, row.mean_logprob, row.first_token_ms, row.finish_reason) for row in rows]
