"""`/v1/completions`, as the official client sees it."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types import Completion

from shared.messages import LikelyToken, Question, Reply, TokenChunk, TokenLogprob
from tests.api.completions.conftest import Station
from tests.api.fake_worker import FakeWorker, answer, refuse, tokens


def go_on(question: Question) -> list[Reply]:
    """Continues with the prompt's last word, and a space before it."""
    word = f" {(question.prompt or '').rpartition(' ')[2]}"
    return [*tokens(question, word[:2], word[2:]), answer(question, word)]


def streamed(api: openai.OpenAI, **fields: Any) -> list[Completion]:
    """By a lenient client: the type wants a reason in every chunk, and OpenAI itself sends null before the last."""
    with openai.OpenAI(base_url=api.base_url, api_key="unused", max_retries=0) as lenient:
        return list(lenient.completions.create(**{"model": "demo", "stream": True, **fields}))


def joined(chunks: list[Completion], index: int) -> str:
    return "".join(choice.text for chunk in chunks for choice in chunk.choices if choice.index == index)


def test_a_prompt_is_continued_as_it_stands(api: openai.OpenAI, station: Station) -> None:
    with FakeWorker(station.settings.resolved_redis_url, go_on) as worker:
        found = api.completions.create(model="demo", prompt="It is  so")
    (question,) = worker.questions
    assert (question.prompt, question.turns, question.sampling.max_new_tokens) == ("It is  so", (), 16)
    assert found.id.startswith("cmpl-")
    assert (found.object, found.model) == ("text_completion", "demo")
    (choice,) = found.choices
    assert (choice.index, choice.text, choice.finish_reason, choice.logprobs) == (0, " so", "stop", None)


def test_each_prompt_of_a_list_is_answered_in_its_place(api: openai.OpenAI, station: Station) -> None:
    with FakeWorker(station.settings.resolved_redis_url, go_on):
        found = api.completions.create(model="demo", prompt=["a b", "c d"], echo=True)
        chunks = streamed(api, prompt=["a b", "c d"], echo=True, stream_options={"include_usage": True})
    assert [(choice.index, choice.text) for choice in found.choices] == [(0, "a b b"), (1, "c d d")]
    assert [joined(chunks, index) for index in (0, 1)] == ["a b b", "c d d"]
    for one in (found, chunks[-1]):
        assert one.usage is not None
        assert one.usage.total_tokens == 10
    assert chunks[-1].choices == []


def test_a_stream_ends_each_choice_with_its_reason(api: openai.OpenAI, station: Station) -> None:
    with FakeWorker(station.settings.resolved_redis_url, go_on):
        chunks = streamed(api, prompt=["a", "b"])
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert sorted(one.index for one in choices if one.finish_reason == "stop") == [0, 1]
    assert {one.finish_reason for one in choices if one.text} == {None}


def test_logprobs_have_the_older_shape_whose_offsets_count_characters(api: openai.OpenAI, station: Station) -> None:
    halves = [TokenLogprob(token="\ufffd", bytes=(byte,), logprob=-0.5) for byte in "é".encode()]
    last = TokenLogprob(token="!", bytes=(33,), logprob=-1.0, top_logprobs=(_likely("!", -1.0), _likely("?", -2.0)))
    logprobs = (*halves, last)

    def say(question: Question) -> list[Reply]:
        chunks = [
            TokenChunk(question_id=question.id, text="é", logprobs=logprobs[:2]),
            TokenChunk(question_id=question.id, text="!", offset=1, logprobs=logprobs[2:], logprobs_offset=2),
        ]
        return [*chunks, answer(question, "é!").model_copy(update={"logprobs": logprobs})]

    with FakeWorker(station.settings.resolved_redis_url, say):
        whole = api.completions.create(model="demo", prompt="x", logprobs=2).choices[0].logprobs
        parts = [chunk.choices[0].logprobs for chunk in streamed(api, prompt="x", logprobs=2)]
    assert whole is not None
    assert (whole.tokens, whole.token_logprobs) == (["\ufffd", "\ufffd", "!"], [-0.5, -0.5, -1.0])
    assert (whole.text_offset, whole.top_logprobs) == ([0, 0, 1], [{}, {}, {"!": -1.0, "?": -2.0}])
    assert [one for part in parts if part for one in part.text_offset or []] == whole.text_offset


def _likely(token: str, logprob: float) -> LikelyToken:
    return LikelyToken(token=token, bytes=tuple(token.encode()), logprob=logprob)


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("prompt", {"prompt": [1, 2]}),
        ("prompt", {"prompt": [[1], [2]]}),
        ("prompt", {"prompt": []}),
        ("prompt", {"prompt": ["a"] * 33}),
        ("suffix", {"suffix": "end"}),
        ("best_of", {"best_of": 2}),
        ("logprobs", {"logprobs": 1, "echo": True}),
        ("messages", {"extra_body": {"messages": []}}),
    ],
)
def test_what_is_not_offered_is_refused_by_name(api: openai.OpenAI, param: str, fields: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        api.completions.create(**{"model": "demo", "prompt": "a", **fields})
    assert caught.value.param == param


@pytest.mark.parametrize("is_streamed", [False, True])
def test_one_refusal_ends_the_whole_request_and_aborts_its_other_prompts(
    api: openai.OpenAI, station: Station, is_streamed: bool
) -> None:
    def refuse_the_second(question: Question) -> list[Reply]:
        return [] if question.prompt == "a" else list(refuse("prompt_too_long", "Too long.")(question))

    with FakeWorker(station.settings.resolved_redis_url, refuse_the_second) as worker:
        with pytest.raises(openai.BadRequestError) as caught:
            api.completions.create(model="demo", prompt=["a", "b"], stream=is_streamed)
        assert worker.has_aborted.wait(10)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")
    assert worker.aborts == [one.id for one in worker.questions if one.prompt == "a"]
