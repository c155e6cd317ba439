from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from shared.batch_parameters import BatchLine
from shared.errors import AnswerTimeout, FinetunedError, PromptTooLong
from shared.messages import Answer, Question, Refusal, Sampling
from shared.streams import ABORTS, BACKGROUND_QUESTIONS, replies_of
from tests.batches.files import answer
from worker.batches.output import Result
from worker.batches.questions import LOOK_SECONDS, BackgroundQuestions, connect

JOB = "batch_1"


class Bench:
    """A job's questions over a real Redis, a clock that is set, and the other side of the streams."""

    def __init__(self, url: str) -> None:
        self.redis = redis.Redis.from_url(url, decode_responses=True, protocol=2)
        self.client = connect(url)
        self.now = 0.0
        self.limit = 3

    def attempt(self, job_id: str = JOB) -> BackgroundQuestions[BatchLine]:
        def question(question_id: str, line: BatchLine) -> Question:
            return Question(
                id=question_id, project_id="default", reply_to=replies_of(job_id), turns=line.turns,
                sampling=Sampling(), model="demo", deadline=1e12, asked_at=0.0, is_background=True,
            )  # fmt: skip

        made = BackgroundQuestions(self.client, job_id, question, lambda: self.limit, lambda: self.now, 1)
        assert made.num_places == 0
        made.results()  # looks for what earlier attempts sent
        return made

    def ask(self, questions: BackgroundQuestions[BatchLine], *numbers: int) -> None:
        for number in numbers:
            questions.ask(number, BatchLine(query=f"Question {number}", custom_id=f"q{number}"))
        assert questions.results() == []

    def waiting(self) -> list[str]:
        """Ids of the questions on the stream."""
        entries: Any = self.redis.xrange(BACKGROUND_QUESTIONS)
        return [Question.model_validate_json(fields["question"]).id for _, fields in entries]

    def reply(self, number: int, error: FinetunedError | None = None, text: str = "said") -> None:
        """As a worker: the reply, and the entry off the stream, at once."""
        name = f"{JOB}.{number}"
        reply: Answer | Refusal = answer(name, text)
        if error is not None:
            reply = Refusal(question_id=name, code=error.code, detail=error.detail)
        entries: Any = self.redis.xrange(BACKGROUND_QUESTIONS)
        with self.redis.pipeline() as pipe:
            pipe.xadd(replies_of(JOB), {"reply": reply.model_dump_json()})
            for entry_id, fields in entries:
                if Question.model_validate_json(fields["question"]).id == name:
                    pipe.xdel(BACKGROUND_QUESTIONS, entry_id)
            pipe.execute()


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    bench = Bench(redis_url)
    yield bench
    bench.redis.close()
    bench.client.close()


def lines_of(results: list[Result]) -> list[int]:
    return sorted(result.line for result in results)


def test_a_bounded_number_of_questions_is_on_its_way(bench: Bench) -> None:
    questions = bench.attempt()
    bench.ask(questions, 1, 2)
    assert (questions.num_places, questions.num_open) == (1, 2)
    bench.reply(2)
    (result,) = questions.results()
    assert (result.line, result.custom_id) == (2, "q2")
    assert (questions.num_places, questions.num_open) == (2, 1)
    assert bench.waiting() == [f"{JOB}.1"]


def test_what_a_killed_attempt_sent_is_not_sent_again(bench: Bench) -> None:
    bench.ask(bench.attempt(), 1, 2, 3)
    other = bench.attempt("batch_2")
    bench.ask(other, 1)
    bench.reply(2)  # nobody listens
    second = bench.attempt()
    for number in (1, 2, 3):
        second.ask(number, BatchLine(query=f"Question {number}", custom_id=f"q{number}"))
    assert lines_of(second.results()) == [2]
    assert bench.waiting() == [f"{JOB}.1", f"{JOB}.3", "batch_2.1"]
    bench.reply(1)
    bench.reply(3)
    assert lines_of(second.results()) == [1, 3]


def test_a_question_that_redis_lost_is_sent_again(bench: Bench) -> None:
    questions = bench.attempt()
    bench.ask(questions, 1, 2)
    bench.redis.flushall()
    for _ in range(2):
        assert bench.waiting() == []
        bench.now += LOOK_SECONDS
        assert questions.results() == []
    assert bench.waiting() == [f"{JOB}.1", f"{JOB}.2"]
    bench.reply(1)
    assert lines_of(questions.results()) == [1]


def test_a_question_whose_reply_is_on_its_way_is_not_taken_for_lost(bench: Bench) -> None:
    questions = bench.attempt()
    bench.ask(questions, 1)
    bench.now += LOOK_SECONDS
    bench.reply(1)
    assert lines_of(questions.results()) == [1]
    bench.now += LOOK_SECONDS
    questions.results()
    assert bench.waiting() == []


def test_a_refusal_that_may_pass_is_tried_again_and_one_that_stays_is_the_result(bench: Bench) -> None:
    questions = bench.attempt()
    bench.ask(questions, 1, 2)
    bench.reply(2, PromptTooLong("Too long."))
    (refused,) = questions.results()
    assert isinstance(refused.outcome, PromptTooLong)
    assert refused.outcome.detail == "Too long."
    for _ in range(2):
        bench.reply(1, AnswerTimeout())
        assert questions.results() == []
        questions.results()
        assert bench.waiting() == [f"{JOB}.1"]
    bench.reply(1, AnswerTimeout())
    (given_up,) = questions.results()
    assert isinstance(given_up.outcome, AnswerTimeout)


def test_replies_are_kept_until_they_are_on_disk(bench: Bench) -> None:
    questions = bench.attempt()
    bench.ask(questions, 1, 2, 3)
    bench.reply(1)
    bench.reply(2)
    assert lines_of(questions.results()) == [1, 2]
    assert bench.redis.xlen(replies_of(JOB)) == 2
    questions.forget()
    assert bench.redis.xlen(replies_of(JOB)) == 1  # the last that was read marks the place
    again = bench.attempt()
    bench.ask(again, 3)


def test_abandoned_questions_are_aborted_and_nothing_is_left(bench: Bench) -> None:
    questions = bench.attempt()
    bench.ask(questions, 1, 2)
    bench.reply(1)
    questions.results()
    with bench.redis.pubsub(ignore_subscribe_messages=True) as aborts:
        aborts.subscribe(ABORTS)
        aborts.get_message(timeout=5)
        questions.close(is_abandoned=True)
        message = aborts.get_message(timeout=5)
    assert message is not None
    assert message["data"] == f"{JOB}.2"
    assert not bench.redis.exists(replies_of(JOB))
