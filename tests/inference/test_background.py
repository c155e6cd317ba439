"""Background questions: answered by the real worker, behind those that somebody waits for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.ids import new_id
from shared.messages import Answer, Question, Sampling, TokenChunk, Turn, parse_reply
from shared.settings import Settings
from shared.streams import BACKGROUND_QUESTIONS, GROUP, replies_of
from tests.batches.conftest import Bench, open_bench
from tests.batches.files import questions, read_output, write_input
from tests.inference.test_service import Client, Worker
from tests.jobs.runners import starts
from tests.waiting import until
from worker.inference.batch import answer_file
from worker.inference.models import load_base
from worker.inference.questions import QuestionStream, connect

CAPACITY = 4
REPLIES = replies_of("background")


@pytest.fixture
def settings(settings: Settings, gpt2: Path) -> Settings:
    return settings.model_copy(update={"base_model": str(gpt2), "max_batch_size": CAPACITY})


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    with open_bench(settings) as bench:
        yield bench


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    client = Client(settings.resolved_redis_url, settings.base_model)
    yield client
    client.redis.close()


@pytest.fixture
def new_worker(settings: Settings, bench: Bench) -> Iterator[Callable[[], Worker]]:
    workers: list[Worker] = []

    def start() -> Worker:
        workers.append(Worker(settings, bench.database))
        workers[-1].thread.start()
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def send(client: Client, number: int, num_tokens: int) -> list[str]:
    """Background questions on the stream, as a batch sends them."""
    names = [new_id("batch_x.") for _ in range(number)]
    for name in names:
        question = Question(
            id=name, project_id="default", reply_to=REPLIES, turns=(Turn(role="user", content="Hi"),),
            sampling=Sampling(max_new_tokens=num_tokens), model=client.model, deadline=time.time() + 60,
            asked_at=time.time(), is_background=True,
        )  # fmt: skip
        client.redis.xadd(BACKGROUND_QUESTIONS, {"question": question.model_dump_json()})
    return names


def replies(client: Client) -> list[Answer]:
    """What came so far; every reply is a whole answer."""
    found = [parse_reply(fields["reply"]) for _, fields in client.redis.xrange(REPLIES)]
    assert not any(isinstance(reply, TokenChunk) for reply in found)
    return [reply for reply in found if isinstance(reply, Answer)]


def test_background_questions_are_answered_like_others_and_as_a_whole(
    new_worker: Callable[[], Worker],
    client: Client,
) -> None:
    new_worker()
    names = send(client, 6, num_tokens=8)
    until(lambda: len(replies(client)) == 6)
    assert {reply.question_id for reply in replies(client)} == set(names)
    assert {reply.text for reply in replies(client)} == {client.answer("Hi", num_tokens=8).text}
    until(lambda: client.redis.xlen(BACKGROUND_QUESTIONS) == 0)


def test_background_questions_leave_places_to_those_that_somebody_waits_for(
    new_worker: Callable[[], Worker],
    client: Client,
) -> None:
    worker = new_worker()
    client.answer("Hi", num_tokens=1)  # the model is loaded
    send(client, 200, num_tokens=60)
    until(lambda: worker.service.num_questions == CAPACITY - 1)
    for _ in range(3):
        client.answer("Hi", num_tokens=4)
        assert worker.service.num_questions <= CAPACITY
    assert len(replies(client)) < 100  # they overtook


def test_a_dead_worker_s_background_questions_are_taken_over(
    new_worker: Callable[[], Worker],
    client: Client,
    settings: Settings,
) -> None:
    dead = QuestionStream(connect(settings.resolved_redis_url), "dead")
    dead.join()
    send(client, 3, num_tokens=2)
    assert len(dead.pull(9, None, is_background=True)) == 3
    dead.close()
    new_worker()
    until(lambda: len(replies(client)) == 3)
    until(lambda: client.redis.xpending(BACKGROUND_QUESTIONS, GROUP)["pending"] == 0)


def test_a_batch_killed_in_the_middle_ends_as_the_library_answers_it(
    new_worker: Callable[[], Worker],
    bench: Bench,
    settings: Settings,
    tmp_path: Path,
) -> None:
    lines = questions(30, max_new_tokens=6, temperature=0.8, seed=4)
    job_id = bench.create(*lines)
    thread = bench.work_in_background()
    new_worker()
    until(lambda: len(bench.output(job_id)) >= 4)
    os.kill(starts(settings.data_dir, job_id)[0], signal.SIGKILL)
    thread.join()
    output = {line["line"]: line["answer"] for line in bench.output(job_id)}
    assert (bench.job(job_id).status, bench.job(job_id).attempt) == ("succeeded", 2)
    assert len(bench.output(job_id)) == len(output) == 30
    expected = tmp_path / "expected.jsonl"
    answer_file(load_base(settings.base_model, settings), write_input(tmp_path / "in.jsonl", *lines), expected)
    assert output == {line["line"]: line["answer"] for line in read_output(expected)}
