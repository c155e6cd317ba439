"""`/v1/chat/completions`, as the official client sees it: a worker that is told what to say shows the shapes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
import redis
from fastapi.testclient import TestClient
from openai.types.chat import ChatCompletionChunk

from shared.messages import (
    Choice,
    LikelyToken,
    Quality,
    Question,
    Refusal,
    Reply,
    Sampling,
    TokenChunk,
    TokenLogprob,
    Turn,
)
from shared.streams import QUESTIONS
from tests.api.completions.conftest import Station
from tests.api.conftest import publish
from tests.api.fake_worker import FakeWorker, Script, answer, echo, refuse, say_nothing, tokens
from tests.waiting import until

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
LOGPROB = TokenLogprob(
    token="é", bytes=(195, 169), logprob=-0.25, top_logprobs=(LikelyToken(token="e", bytes=(101,), logprob=-0.5),)
)


@contextmanager
def working(station: Station, script: Script = echo) -> Iterator[FakeWorker]:
    with FakeWorker(station.settings.resolved_redis_url, script) as worker:
        yield worker


def refused(api: openai.OpenAI, **fields: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.create(**{"model": "demo", "messages": HELLO, **fields})
    return caught.value


def streamed(api: openai.OpenAI, **fields: Any) -> list[ChatCompletionChunk]:
    return list(api.chat.completions.create(**{"model": "demo", "messages": HELLO, "stream": True, **fields}))


def two_choices(question: Question) -> list[Reply]:
    """Two answers whose pieces alternate."""
    texts = ("one", "two")
    chunks: list[Reply] = [
        TokenChunk(question_id=question.id, text=text[at], offset=at, choice=index)
        for at in range(3)
        for index, text in enumerate(texts)
    ]
    quality = Quality(mean_logprob=-1.0, repetition=0.0)
    choices = tuple(
        Choice(index=index, text=text, finish_reason=reason, completion_tokens=3, quality=quality)
        for index, (text, reason) in enumerate(zip(texts, ("stop", "length"), strict=True))
    )
    return [*chunks, answer(question, "one").model_copy(update={"choices": choices})]


def with_logprobs(question: Question) -> list[Reply]:
    chunk = TokenChunk(question_id=question.id, text="é", logprobs=(LOGPROB,))
    return [chunk, answer(question, "é").model_copy(update={"logprobs": (LOGPROB,)})]


def test_a_whole_answer_has_openais_shape(api: openai.OpenAI, station: Station) -> None:
    with working(station):
        found = api.chat.completions.create(model="demo", messages=HELLO)
    assert found.id.startswith("chatcmpl-")
    assert (found.object, found.model, found.system_fingerprint) == ("chat.completion", "demo", None)
    (choice,) = found.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content, choice.message.refusal) == ("assistant", "Hello", None)
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (3, 2, 5)


def test_every_parameter_reaches_the_worker(api: openai.OpenAI, station: Station) -> None:
    with working(station, lambda question: [two_choices(question)[-1]]) as worker:
        api.chat.completions.create(
            model="demo", messages=HELLO, max_completion_tokens=7, temperature=0.5, top_p=0.9, n=2, stop=["a", "b"],
            seed=-1, frequency_penalty=0.1, presence_penalty=0.2, logprobs=True, top_logprobs=3,
            extra_body={"top_k": 4, "repetition_penalty": 1.5},
        )  # fmt: skip
    assert worker.questions[0].sampling == Sampling(
        max_new_tokens=7, temperature=0.5, top_p=0.9, n=2, stop=("a", "b"), seed=2**63 - 1, frequency_penalty=0.1,
        presence_penalty=0.2, logprobs=3, top_k=4, repetition_penalty=1.5,
    )  # fmt: skip


def test_without_parameters_openais_defaults_hold_and_nothing_falls_back(api: openai.OpenAI, station: Station) -> None:
    with working(station) as worker:
        api.chat.completions.create(model="demo", messages=HELLO)
    (question,) = worker.questions
    assert question.sampling == Sampling(max_new_tokens=1024, temperature=1.0)
    assert not question.fallback


def test_messages_become_turns(api: openai.OpenAI, station: Station) -> None:
    parts: Any = [{"type": "text", "text": "And "}, {"type": "text", "text": "you?"}]
    with working(station) as worker:
        first = api.chat.completions.create(model="demo", messages=HELLO)
        api.chat.completions.create(
            model="demo",
            messages=[
                {"role": "developer", "content": "Be kind."},
                *HELLO,
                first.choices[0].message,  # type: ignore[list-item] - as people pass it on
                {"role": "user", "content": parts, "name": "Ada"},
            ],
        )
    assert worker.questions[1].turns == (
        Turn(role="system", content="Be kind."),
        Turn(role="user", content="Hello"),
        Turn(role="assistant", content="Hello"),
        Turn(role="user", content="And you?"),
    )


def test_what_has_no_effect_is_accepted(api: openai.OpenAI, station: Station) -> None:
    with working(station) as worker:
        api.chat.completions.create(
            model="demo", messages=HELLO, user="ada", metadata={"a": "b"}, store=True, service_tier="auto",
            response_format={"type": "text"}, modalities=["text"], tools=[], tool_choice="none", logit_bias={},
            parallel_tool_calls=True, reasoning_effort="low", verbosity="low", safety_identifier="x",
            prompt_cache_key="y", stop=None, seed=None, max_tokens=None,
        )  # fmt: skip
    assert worker.questions[0].sampling == Sampling(max_new_tokens=1024, temperature=1.0)


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("modalities", ["text", "audio"]),
        ("response_format", {"type": "json_object"}),
        ("logit_bias", {"50256": -100}),
        ("web_search_options", {}),
        ("stream_options", {"include_usage": True}),
        ("top_logprobs", 2),
        ("n", 9),
        ("temperature", 2.5),
        ("max_tokens", 0),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("messages", []),
    ],
)
def test_what_is_not_offered_is_refused_by_name(api: openai.OpenAI, param: str, value: Any) -> None:
    error = refused(api, **{param: value})
    assert (error.code, error.param, error.type) == ("invalid_request", param, "invalid_request_error")
    assert error.body["message"].startswith(f"{param}: ")  # type: ignore[index]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "messages.0.content"),
        ({"role": "tool", "content": "4", "tool_call_id": "x"}, "messages.0.role"),
        ({"role": "assistant", "content": "", "tool_calls": [{"id": "x"}]}, "messages.0.tool_calls"),
        ({"role": "user"}, "messages.0.content"),
    ],
)
def test_a_message_that_is_not_text_is_refused_by_its_place(api: openai.OpenAI, message: Any, param: str) -> None:
    assert refused(api, messages=[message]).param == param


def test_an_unknown_field_and_two_limits_are_refused(api: openai.OpenAI) -> None:
    assert refused(api, extra_body={"max_new_tokens": 5}).param == "max_new_tokens"
    assert refused(api, max_tokens=4, max_completion_tokens=5).param == "max_completion_tokens"


def test_an_unknown_model_is_not_found(api: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        api.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_known_model_without_a_worker_is_unavailable(client: TestClient) -> None:
    api = openai.OpenAI(base_url="http://localhost/v1", api_key="unused", max_retries=0, http_client=client)
    with pytest.raises(openai.InternalServerError) as caught:
        api.chat.completions.create(model="demo", messages=HELLO)
    assert (caught.value.code, caught.value.status_code) == ("no_inference_worker", 503)
    assert int(caught.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("name", "number", "fingerprint"), [("handbook", None, "handbook@1"), ("handbook@1", 1, "handbook@1")]
)
def test_an_adapter_answers_by_its_name_and_says_which_version_did(
    api: openai.OpenAI, station: Station, name: str, number: int | None, fingerprint: str
) -> None:
    if number is None:
        publish(station.rows, "handbook")
    with working(station) as worker:
        found = api.chat.completions.create(model=name, messages=HELLO)
    assert (worker.questions[0].adapter, worker.questions[0].version) == ("handbook", number)
    assert (found.model, found.system_fingerprint) == (name, fingerprint)
    assert found.model_extra is not None
    assert found.model_extra["finetuned"] == {
        "adapter": "handbook", "version": 1, "fallback": False, "fallback_reason": None,
    }  # fmt: skip


def test_an_unknown_model_falls_back_when_asked_and_the_answer_names_the_base(
    api: openai.OpenAI, station: Station
) -> None:
    def fall_back(question: Question) -> list[Reply]:
        said = answer(question, "Hello").model_copy(
            update={"adapter": None, "version": None, "fallback": True, "fallback_reason": "None such."}
        )
        return [*tokens(question, "Hello"), said]

    with working(station, fall_back) as worker:
        whole = api.chat.completions.create(model="nobody@7", messages=HELLO, extra_body={"fallback": True})
        chunks = streamed(api, model="nobody@7", extra_body={"fallback": True})
    asked = worker.questions[0]
    assert (asked.model, asked.adapter, asked.version, asked.fallback) == ("demo", "nobody", 7, True)
    for found in (whole, chunks[-1]):
        assert found.model == "demo"
        assert (found.model_extra or {})["finetuned"]["fallback_reason"] == "None such."


def test_a_stream_begins_with_the_role_and_ends_with_the_reason(api: openai.OpenAI, station: Station) -> None:
    with working(station):
        chunks = streamed(api)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [delta.role for delta in deltas] == ["assistant", None, None, None]
    assert [delta.content for delta in deltas] == ["", "He", "llo", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert {(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks} == {
        (chunks[0].id, chunks[0].created, "demo", "chat.completion.chunk")
    }
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_counts_its_tokens_in_a_last_chunk_without_choices(api: openai.OpenAI, station: Station) -> None:
    with working(station):
        *chunks, last = streamed(api, stream_options={"include_usage": True})
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 5


def test_the_choices_of_a_stream_are_kept_apart(api: openai.OpenAI, station: Station) -> None:
    with working(station, two_choices):
        chunks = streamed(api, n=2)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    texts = ["".join(one.delta.content or "" for one in choices if one.index == index) for index in (0, 1)]
    assert texts == ["one", "two"]
    assert [one.index for one in choices if one.delta.role] == [0, 1]
    assert [one.finish_reason for one in choices if one.finish_reason] == ["stop", "length"]


def test_logprobs_come_whole_and_streamed(api: openai.OpenAI, station: Station) -> None:
    with working(station, with_logprobs):
        whole = api.chat.completions.create(model="demo", messages=HELLO, logprobs=True, top_logprobs=1)
        chunks = streamed(api, logprobs=True, top_logprobs=1)
    streamed_ones = [one for chunk in chunks if (one := chunk.choices[0].logprobs) is not None]
    for found in (whole.choices[0].logprobs, *streamed_ones):
        assert found is not None
        assert [one.model_dump() for one in found.content or []] == [LOGPROB.model_dump(mode="json")]
    assert len(streamed_ones) == 1


def test_what_the_end_has_beyond_the_tokens_is_streamed_too(api: openai.OpenAI, station: Station) -> None:
    def say_the_rest_at_once(question: Question) -> list[Reply]:
        return [*tokens(question, "He"), answer(question, "Hello").model_copy(update={"logprobs": (LOGPROB,)})]

    with working(station, say_the_rest_at_once):
        chunks = streamed(api, logprobs=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"
    assert sum(chunk.choices[0].logprobs is not None for chunk in chunks) == 1


@pytest.mark.usefixtures("api")
def test_a_stream_ends_with_done(station: Station) -> None:
    body = {"model": "demo", "messages": HELLO, "stream": True}
    with working(station):
        text = httpx.post(f"{station.url}/v1/chat/completions", json=body).text
    assert text.endswith("data: [DONE]\n\n")
    assert "event:" not in text


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("code", "raised", "shown", "param"),
    [
        ("prompt_too_long", openai.BadRequestError, "context_length_exceeded", "messages"),
        ("invalid_request", openai.BadRequestError, "invalid_request", "messages"),
        ("adapter_not_found", openai.NotFoundError, "model_not_found", "model"),
        ("adapter_broken", openai.ConflictError, "adapter_broken", "model"),
        ("base_model_offline", openai.InternalServerError, "base_model_offline", "model"),
    ],
)
def test_a_refusal_is_an_error_of_the_client(
    api: openai.OpenAI, station: Station, code: str, raised: type[openai.APIStatusError], shown: str, param: str,
    is_streamed: bool,
) -> None:  # fmt: skip
    with working(station, refuse(code, "It cannot be.")), pytest.raises(raised) as caught:
        api.chat.completions.create(model="demo", messages=HELLO, stream=is_streamed)
    assert (caught.value.code, caught.value.param) == (shown, param)
    assert caught.value.body["message"] == "It cannot be."  # type: ignore[index]


def test_an_error_after_the_stream_has_begun_is_raised_by_the_client(api: openai.OpenAI, station: Station) -> None:
    def begin_and_refuse(question: Question) -> list[Reply]:
        return [*tokens(question, "He"), Refusal(question_id=question.id, code="unavailable", detail="It is over.")]

    with working(station, begin_and_refuse):
        stream = api.chat.completions.create(model="demo", messages=HELLO, stream=True)
        said = [next(stream).choices[0].delta.content for _ in range(2)]
        with pytest.raises(openai.APIError, match=r"It is over\.") as caught:
            next(stream)
    assert (said, caught.value.code) == (["", "He"], "unavailable")


def test_a_full_queue_is_a_rate_limit_that_says_when_to_come_again(api: openai.OpenAI, station: Station) -> None:
    with redis.Redis.from_url(station.settings.resolved_redis_url) as client:
        for _ in range(station.settings.max_queued_questions):
            client.xadd(QUESTIONS, {"question": "{}"})
    with pytest.raises(openai.RateLimitError) as caught:
        api.chat.completions.create(model="demo", messages=HELLO)
    assert caught.value.code == "queue_full"
    assert int(caught.value.response.headers["retry-after"]) >= 1
    with redis.Redis.from_url(station.settings.resolved_redis_url) as client:
        client.delete(QUESTIONS)
    with working(station, echo):
        until(lambda: _is_answered(api))  # soon there is room again


def _is_answered(api: openai.OpenAI) -> bool:
    try:
        api.chat.completions.create(model="demo", messages=HELLO)
    except openai.RateLimitError:
        return False
    return True


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_client_that_goes_away_aborts_its_answer(api: openai.OpenAI, station: Station, has_begun: bool) -> None:
    def begin(question: Question) -> list[Reply]:
        return tokens(question, "He")

    with working(station, begin if has_begun else say_nothing) as worker:
        if has_begun:
            stream = api.chat.completions.create(model="demo", messages=HELLO, stream=True)
            next(stream)
            stream.close()
        else:
            with pytest.raises(openai.APITimeoutError):
                api.with_options(timeout=0.3).chat.completions.create(model="demo", messages=HELLO)
        assert worker.has_aborted.wait(10)
        assert worker.aborts == [worker.questions[0].id]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", r'{"model": "demo", "messages": [{"role": "user", "content": "\ud800"}]}'),
        ("completions", r'{"model": "demo", "prompt": "\ud800"}'),
    ],
)
def test_half_of_a_surrogate_pair_is_refused(station: Station, path: str, body: str) -> None:
    found = httpx.post(f"{station.url}/v1/{path}", content=body, headers={"content-type": "application/json"})
    assert (found.status_code, found.json()["error"]["type"]) == (400, "invalid_request_error")
