from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.answers.admission import Admission
from api.answers.dispatcher import MOST_UNREAD, Dispatcher, PendingAnswer
from api.main import create_app
from shared.database import Database
from shared.errors import Unavailable
from shared.messages import Choice, LikelyToken, Quality, Question, Reply, Sampling, TokenChunk, TokenLogprob
from shared.settings import Settings
from shared.streams import GROUP, QUESTIONS, replies_of
from tests.api.conftest import RedisServer, beat, publish
from tests.api.fake_worker import FakeWorker, answer, echo, refuse, say_nothing, tokens
from tests.databases import migrate
from tests.waiting import until

QUERY = "/fine-tuning/query"


@pytest.fixture
def worker(client: TestClient, rows: Database, settings: Settings) -> Iterator[FakeWorker]:
    beat(rows, "inference")
    with FakeWorker(settings.resolved_redis_url, echo) as worker:
        yield worker


def _events(text: str) -> list[tuple[str, Any]]:
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block]
    return [(fields["event"], json.loads(fields["data"])) for fields in blocks]


@pytest.mark.parametrize(
    "form",
    [
        {"json": {"query": "What is AI?", "temperature": 0.5, "seed": 7}},
        {"data": {"query": "What is AI?", "temperature": "0.5", "seed": "7", "adapter": ""}},
        {"files": {"query": (None, "What is AI?"), "temperature": (None, "0.5"), "seed": (None, "7")}},
    ],
    ids=["json", "urlencoded", "multipart"],
)
def test_a_question_is_answered_from_a_form_or_json(
    client: TestClient, worker: FakeWorker, form: dict[str, Any]
) -> None:
    found = client.post(QUERY, **form)
    assert found.status_code == 200
    body = found.json()
    assert (body["answer"], body["finish_reason"], body["fallback"]) == ("What is AI?", "stop", False)
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 2}
    assert body["quality"] == {"mean_logprob": -0.5, "repetition": 0.0}
    assert body["latency_ms"] > 0
    sampling = worker.questions[0].sampling
    assert (sampling.temperature, sampling.seed, sampling.max_new_tokens) == (0.5, 7, 128)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"seed": 1}, "query"),
        ({"query": ""}, "query"),
        ({"query": "x", "temperature": 3}, "temperature"),
        ({"query": "x", "temprature": 1}, "temprature"),
        ({"query": "x", "temperature": "nan"}, "temperature"),
        ({"query": "x", "top_k": -1}, "top_k"),
        ({"query": "x", "repetition_penalty": 0}, "repetition_penalty"),
        ({"query": "x", "frequency_penalty": 2.5}, "frequency_penalty"),
        ({"query": "x", "presence_penalty": -3}, "presence_penalty"),
        ({"query": "x", "n": 9}, "n"),
        ({"query": "x", "logprobs": 21}, "logprobs"),
        ({"query": "x", "stop": ["1", "2", "3", "4", "5"]}, "stop"),
        ({"query": "x", "stop": ["ok", "s" * 257]}, "stop"),
        ({"query": "x", "model": "demo", "adapter": "handbook"}, "model"),
    ],
)
def test_a_wrong_question_is_refused_with_the_field(client: TestClient, body: dict[str, Any], named: str) -> None:
    for form in ({"json": body}, {"data": body}):
        found = client.post(QUERY, **form)  # type: ignore[arg-type]
        assert (found.status_code, found.json()["error"]) == (422, "invalid_request")
        assert named in found.json()["detail"]


@pytest.mark.parametrize("kind", ["json", "data"])
def test_everything_that_chooses_tokens_reaches_the_worker(client: TestClient, worker: FakeWorker, kind: str) -> None:
    sampling = Sampling(
        max_new_tokens=9, temperature=0.5, top_p=0.9, top_k=40, repetition_penalty=1.5, frequency_penalty=-0.5,
        presence_penalty=2.0, stop=("END", "\n"), seed=3, logprobs=0, n=2,
    )  # fmt: skip
    assert set(Sampling.model_fields) == sampling.model_fields_set
    found = client.post(QUERY, **{kind: {"query": "Hello", **sampling.model_dump()}})  # type: ignore[arg-type]
    assert found.status_code == 200
    assert worker.questions[0].sampling == sampling


@pytest.mark.parametrize(("stop", "expected"), [("END", ("END",)), (["END"], ("END",)), ([], ()), (None, ())])
def test_a_stop_string_need_not_stand_in_a_list(
    client: TestClient, worker: FakeWorker, stop: object, expected: tuple[str, ...]
) -> None:
    client.post(QUERY, json={"query": "Hello", "stop": stop})
    assert worker.questions[0].sampling.stop == expected


def test_a_body_that_is_no_json_is_refused(client: TestClient) -> None:
    found = client.post(QUERY, content=b"{nonsense", headers={"content-type": "application/json"})
    assert (found.status_code, found.json()["error"]) == (422, "invalid_request")


def test_without_a_name_the_adapter_published_last_answers(
    client: TestClient, rows: Database, worker: FakeWorker
) -> None:
    publish(rows, "older", created_at=time.time() - 60)
    publish(rows, "newer", base_model="microsoft/DialoGPT-small")
    body = client.post(QUERY, json={"query": "Hello"}).json()
    assert (body["adapter"], body["version"], body["model"]) == ("newer", 1, "microsoft/DialoGPT-small")


def test_before_any_training_the_default_adapter_is_asked_so_that_the_fallback_is_named(
    client: TestClient, worker: FakeWorker
) -> None:
    client.post(QUERY, json={"query": "Hello"})
    asked = worker.questions[0]
    assert (asked.adapter, asked.model, asked.fallback) == ("default", "demo", True)


def test_a_base_model_can_be_asked_itself_if_it_is_allowed(client: TestClient, worker: FakeWorker) -> None:
    assert client.post(QUERY, json={"query": "Hello", "model": "demo"}).json()["adapter"] is None
    refused = client.post(QUERY, json={"query": "Hello", "model": "evil/model"})
    assert (refused.status_code, refused.json()["error"]) == (422, "model_not_allowed")
    assert len(worker.questions) == 1


def test_a_stream_brings_tokens_and_then_the_answer(client: TestClient, worker: FakeWorker) -> None:
    found = client.post(QUERY, json={"query": "Hello", "stream": True})
    assert found.headers["content-type"].startswith("text/event-stream")
    events = _events(found.text)
    assert [name for name, _ in events] == ["token", "token", "answer"]
    assert "".join(data["text"] for _, data in events[:2]) == events[2][1]["answer"] == "Hello"
    assert worker.aborts == []


def test_a_stream_repeats_no_text_when_another_worker_begins_the_answer_anew(
    client: TestClient, rows: Database, settings: Settings
) -> None:
    beat(rows, "inference")

    def die_and_begin_anew(question: Question) -> list[Reply]:
        return [*tokens(question, "Hel"), *tokens(question, "He", "llo"), answer(question, "Hello")]

    with FakeWorker(settings.resolved_redis_url, die_and_begin_anew):
        events = _events(client.post(QUERY, json={"query": "Hello", "stream": True}).text)
    assert [data["text"] for name, data in events if name == "token"] == ["Hel", "lo"]


def _logprob(text: str) -> TokenLogprob:
    likely = LikelyToken(token=text, bytes=tuple(text.encode()), logprob=-0.5)
    return TokenLogprob(**likely.model_dump(), top_logprobs=(likely,))


def _two_answers(question: Question) -> list[Reply]:
    """Two choices, token by token in turn; a worker that begins anew says the first tokens twice."""
    texts = ("abc", "xyz")
    chunks: list[Reply] = [
        TokenChunk(
            question_id=question.id, text=text[place], offset=place, choice=choice,
            logprobs=(_logprob(text[place]),), logprobs_offset=place,
        )
        for place in (0, 0, 1, 2)
        for choice, text in enumerate(texts)
    ]  # fmt: skip
    choices = tuple(
        Choice(
            index=index, text=text, finish_reason="length", completion_tokens=3,
            quality=Quality(mean_logprob=-0.5, repetition=0.0), logprobs=tuple(map(_logprob, text)),
        )
        for index, text in enumerate(texts)
    )  # fmt: skip
    end = answer(question, texts[0]).model_copy(update={"choices": choices, "logprobs": choices[0].logprobs})
    return [*chunks, end]


def test_several_answers_and_their_log_probabilities_come_whole_and_as_a_stream(
    client: TestClient, rows: Database, settings: Settings
) -> None:
    beat(rows, "inference")
    body = {"query": "Hello", "n": 2, "logprobs": 1, "temperature": 1}
    with FakeWorker(settings.resolved_redis_url, _two_answers):
        whole = client.post(QUERY, json=body).json()
        events = _events(client.post(QUERY, json={**body, "stream": True}).text)
    assert [(one["index"], one["answer"], one["finish_reason"]) for one in whole["choices"]] == [
        (0, "abc", "length"),
        (1, "xyz", "length"),
    ]
    assert whole["answer"] == "abc"
    assert (
        whole["logprobs"] == whole["choices"][0]["logprobs"] == [_logprob(one).model_dump(mode="json") for one in "abc"]
    )
    assert [(data["choice"], data["text"]) for name, data in events if name == "token"] == [
        (0, "a"), (1, "x"), (0, "b"), (1, "y"), (0, "c"), (1, "z"),
    ]  # fmt: skip
    assert all(data["logprobs"][0]["token"] == data["text"] for name, data in events if name == "token")
    assert events[-1][1]["choices"] == whole["choices"]


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("code", "status"), [("adapter_not_found", 404), ("prompt_too_long", 422), ("base_model_offline", 503)]
)
def test_what_the_worker_refuses_is_an_http_error(
    client: TestClient, rows: Database, settings: Settings, code: str, status: int, is_streamed: bool
) -> None:
    beat(rows, "inference")
    with FakeWorker(settings.resolved_redis_url, refuse(code, "Because.")):
        body = {"query": "Hello", "fallback": False, "adapter": "nobody", "stream": is_streamed}
        found = client.post(QUERY, json=body)
    assert found.status_code == status
    assert found.json() == {"error": code, "detail": "Because."}
    assert ("retry-after" in found.headers) == (status == 503)


def test_an_error_in_a_stream_that_has_begun_is_an_event(
    client: TestClient, rows: Database, settings: Settings
) -> None:
    def begin_and_break(question: Question) -> list[Reply]:
        return [*tokens(question, "He"), *refuse("adapter_broken", "Torn.")(question)]

    beat(rows, "inference")
    with FakeWorker(settings.resolved_redis_url, begin_and_break):
        events = _events(client.post(QUERY, json={"query": "Hello", "stream": True}).text)
    broken = {"error": "adapter_broken", "detail": "Torn.", "retryable": False}
    assert events == [("token", {"text": "He"}), ("error", broken)]


def test_without_an_inference_worker_the_answer_is_503_at_once(client: TestClient) -> None:
    found = client.post(QUERY, json={"query": "Hello"})
    assert (found.status_code, found.json()["error"]) == (503, "no_inference_worker")
    assert int(found.headers["retry-after"]) > 0


@pytest.mark.parametrize(("waited_seconds", "least", "most"), [(0, 1, 10), (20, 15, 36), (10_000, 60, 60)])
def test_a_full_queue_says_how_long_its_next_question_has_waited(
    app: FastAPI, rows: Database, settings: Settings, waited_seconds: int, least: int, most: int
) -> None:
    beat(rows, "inference")
    few = create_app(settings.model_copy(update={"max_queued_questions": 1}))
    with (
        redis.Redis.from_url(settings.resolved_redis_url) as broker,
        TestClient(few, base_url="http://localhost") as client,
    ):
        since_ms = int(1000 * (time.time() - waited_seconds))
        broker.xgroup_create(QUESTIONS, GROUP, id="0", mkstream=True)
        broker.xadd(QUESTIONS, {"question": "taken"}, id="1-0")
        broker.xreadgroup(GROUP, "worker", {QUESTIONS: ">"})
        broker.xadd(QUESTIONS, {"question": "waiting"}, id=f"{since_ms}-0")
        found = [client.post(QUERY, json={"query": "Hello"}) for _ in range(20)]
        assert {one.status_code for one in found} == {429}
        assert all(least <= int(one.headers["retry-after"]) <= most for one in found)
        # Not all at the same moment: the waits differ, where there is room for it between the bounds.
        assert waited_seconds != 20 or len({one.headers["retry-after"] for one in found}) > 1


def test_a_full_queue_refuses_all_dialects_without_asking_redis_each_time(
    app: FastAPI, rows: Database, settings: Settings
) -> None:
    beat(rows, "inference")
    full = create_app(settings.model_copy(update={"max_queued_questions": 1}))
    chat = {"model": settings.base_model, "messages": [{"role": "user", "content": "Hello"}]}
    with (
        redis.Redis.from_url(settings.resolved_redis_url) as broker,
        TestClient(full, base_url="http://localhost") as client,
    ):
        full.state.services.dispatcher.admission = Admission(1, clock=lambda: 0.0)  # the moment never ends
        broker.xadd(QUESTIONS, {"question": "waiting"})
        assert client.post(QUERY, json={"query": "Hello"}).status_code == 429
        broker.delete(QUESTIONS)  # there would be room
        native = client.post(QUERY, json={"query": "Hello"})
        openai = client.post("/v1/chat/completions", json=chat)
        assert [native.status_code, openai.status_code] == [429, 429]
        assert int(native.headers["retry-after"]) >= 1
        assert not broker.exists(QUESTIONS)


def test_redis_holds_nothing_of_questions_that_nobody_takes_and_nobody_waits_for_any_more(
    app: FastAPI, rows: Database, settings: Settings
) -> None:
    beat(rows, "inference")
    hasty = settings.model_copy(update={"answer_timeout_seconds": 0.5, "max_queued_questions": 3})
    with (
        redis.Redis.from_url(settings.resolved_redis_url) as broker,
        TestClient(create_app(hasty), base_url="http://localhost") as client,
    ):
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: client.post(QUERY, json={"query": "Hello"}).status_code, range(8)))
        assert set(found) == {429, 504}
        until(lambda: broker.xlen(QUESTIONS) == 0)


def test_what_was_read_of_the_replies_leaves_redis(client: TestClient, worker: FakeWorker, settings: Settings) -> None:
    for _ in range(3):
        client.post(QUERY, json={"query": "Hello"})
    with redis.Redis.from_url(settings.resolved_redis_url) as broker:
        until(lambda: broker.xlen(worker.questions[0].reply_to) == 0)


def test_a_full_queue_refuses_and_asks_to_come_back(client: TestClient, rows: Database, settings: Settings) -> None:
    beat(rows, "inference")
    with redis.Redis.from_url(settings.resolved_redis_url) as broker:
        for _ in range(settings.max_queued_questions):
            broker.xadd(QUESTIONS, {"question": "{}"})
        found = client.post(QUERY, json={"query": "Hello"})
        assert broker.xlen(QUESTIONS) == settings.max_queued_questions
        assert (found.status_code, found.json()["error"]) == (429, "queue_full")
        assert int(found.headers["retry-after"]) > 0


def test_questions_that_a_worker_has_taken_do_not_count_as_waiting(
    client: TestClient, rows: Database, settings: Settings
) -> None:
    beat(rows, "inference")
    with redis.Redis.from_url(settings.resolved_redis_url) as broker:
        for _ in range(settings.max_queued_questions):
            broker.xadd(QUESTIONS, {"question": "{}"})
        broker.xgroup_create(QUESTIONS, "inference", id="0")
        broker.xreadgroup("inference", "busy", {QUESTIONS: ">"}, count=settings.max_queued_questions)
        found: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: found.append(client.post(QUERY, json={"query": "Hello"})))
        thread.start()
        until(lambda: broker.xlen(QUESTIONS) == settings.max_queued_questions + 1)
        _, entries = broker.xreadgroup("inference", "busy", {QUESTIONS: ">"})[0]
        question = Question.model_validate_json(entries[0][1][b"question"])
        broker.xadd(question.reply_to, {"reply": answer(question, "Hi").model_dump_json()})
        thread.join()
    assert [(one.status_code, one.json()["answer"]) for one in found] == [(200, "Hi")]


@pytest.fixture
def hasty(settings: Settings) -> Iterator[TestClient]:
    """An application that waits half a second for an answer."""
    settings = settings.model_copy(update={"answer_timeout_seconds": 0.5})
    migrate(settings.resolved_database_url)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield client


def test_a_missed_deadline_is_504_and_aborts_the_question(
    hasty: TestClient, rows: Database, settings: Settings
) -> None:
    beat(rows, "inference")
    with FakeWorker(settings.resolved_redis_url, say_nothing) as worker:
        found = hasty.post(QUERY, json={"query": "Hello"})
        assert (found.status_code, found.json()["error"]) == (504, "answer_timeout")
        assert worker.has_aborted.wait(5)
        assert worker.aborts == [worker.questions[0].id]


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("has_begun", [False, True])
def test_a_client_that_goes_away_aborts_its_question(
    served: httpx.Client, rows: Database, settings: Settings, is_streamed: bool, has_begun: bool
) -> None:
    def begin(question: Question) -> list[Reply]:
        return tokens(question, "He") if has_begun else []

    beat(rows, "inference")
    with FakeWorker(settings.resolved_redis_url, begin) as worker:
        with pytest.raises(httpx.ReadTimeout):
            served.post(QUERY, json={"query": "Hello", "stream": is_streamed}, timeout=2)
        assert worker.has_aborted.wait(20)
        assert worker.aborts == [worker.questions[0].id]


def test_many_questions_at_once_get_each_their_own_answer(
    served: httpx.Client, rows: Database, settings: Settings
) -> None:
    beat(rows, "inference")
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        found[number] = served.post(QUERY, json={"query": f"question {number}"}, timeout=30).json()["answer"]

    with FakeWorker(settings.resolved_redis_url, echo):
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {number: f"question {number}" for number in range(30)}


def test_while_redis_is_away_the_answer_is_503_and_afterwards_all_is_well(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = Settings(data_dir=tmp_path, redis_url=redis_server.url, base_model="demo")
    migrate(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    beat(database, "inference")
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        for _ in range(2):  # not there at the start, and gone later
            found = client.post(QUERY, json={"query": "Hello"})
            assert (found.status_code, found.json()["error"]) == (503, "broker_unavailable")
            redis_server.start()
            with FakeWorker(redis_server.url, echo):
                assert client.post(QUERY, json={"query": "Hello"}).json()["answer"] == "Hello"
            redis_server.stop()
    database.close()


def test_a_client_that_reads_too_slowly_loses_its_answer_and_not_our_memory(
    settings: Settings,
) -> None:
    question = Question(
        id="answer-1", project_id="default", reply_to=replies_of("x"), turns=(), sampling=Sampling(), model="demo",
        deadline=time.time() + 10, asked_at=time.time(),
    )  # fmt: skip

    async def flood() -> int:
        broker = redis.asyncio.Redis.from_url(settings.resolved_redis_url)
        pending = PendingAnswer(Dispatcher(broker, max_queued=1), question)
        for reply in tokens(question, *["x"] * (MOST_UNREAD + 1)):
            pending.hand_over(reply)
        with pytest.raises(Unavailable):
            await pending.next()
        await broker.aclose()
        return pending.unread.qsize()

    assert asyncio.run(flood()) == 0
