"""Completions by a real inference worker with a tiny model: what it computes is what the client gets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from shared.settings import Settings
from tests.api.completions.conftest import Station
from tests.api.conftest import beat
from tests.inference.serving import Serving, serving
from tests.inference.tiny import publish, save_model

NUM_STREAMS = 64


@pytest.fixture(scope="module")
def module_settings(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    import torch

    torch.set_num_threads(1)
    folder = str(save_model("gpt2", tmp_path_factory.mktemp("models") / "gpt2"))
    return module_settings.model_copy(update={"base_model": folder, "allowed_models": ("demo", folder)})


@pytest.fixture(scope="module")
def worker(station: Station) -> Iterator[Serving]:
    """It serves the base model, and the adapter `handbook`."""
    with serving(station.settings) as served:
        publish(served.database, served.storage, Path(station.settings.base_model), "handbook", 1)
        yield served


@pytest.fixture
def api(station: Station, worker: Serving) -> Iterator[openai.OpenAI]:
    beat(station.rows, "inference")
    with station.client() as client:
        yield client


def chat(content: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 24, **fields}


@pytest.mark.parametrize("name", [None, "handbook", "handbook@1"])
def test_a_greedy_answer_is_that_of_a_native_query(api: openai.OpenAI, station: Station, name: str | None) -> None:
    addressee = {"model": station.settings.base_model} if name is None else {"adapter": "handbook"}
    native = httpx.post(
        f"{station.url}/fine-tuning/query", json={"query": "Hello", "max_new_tokens": 24, **addressee}, timeout=60
    ).json()
    model = name or station.settings.base_model
    whole = api.chat.completions.create(model=model, **chat("Hello"))
    chunks = list(api.chat.completions.create(model=model, stream=True, **chat("Hello")))
    assert native["answer"]
    assert whole.choices[0].message.content == native["answer"]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == native["answer"]
    assert whole.choices[0].finish_reason == native["finish_reason"] == chunks[-1].choices[0].finish_reason


def test_a_raw_prompt_is_continued_as_the_model_itself_does(api: openai.OpenAI, station: Station) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(station.settings.base_model)
    tokenizer = AutoTokenizer.from_pretrained(station.settings.base_model)
    for prompt in ("Once upon a time", "The end. ", ""):
        ids = tokenizer(prompt or "<|endoftext|>", return_tensors="pt").input_ids
        with torch.inference_mode():
            out = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        found = api.completions.create(
            model=station.settings.base_model, prompt=prompt, max_tokens=12, temperature=0, echo=True
        )
        assert found.choices[0].text == prompt + tokenizer.decode(out, skip_special_tokens=True)


def test_a_special_token_in_a_raw_prompt_is_one_token_and_in_a_message_it_is_text(
    api: openai.OpenAI, station: Station
) -> None:
    base = station.settings.base_model
    raw = api.completions.create(model=base, prompt="a<|endoftext|>b", max_tokens=1)
    asked = [api.chat.completions.create(model=base, **chat(text)) for text in ("ab", "a<|endoftext|>b")]
    assert raw.usage is not None
    assert raw.usage.prompt_tokens == 3
    lengths = [one.usage.prompt_tokens for one in asked if one.usage]
    assert lengths[1] - lengths[0] == len("<|endoftext|>")


def test_logprobs_of_a_real_model_add_up_to_the_text(api: openai.OpenAI, station: Station) -> None:
    found = api.chat.completions.create(
        model=station.settings.base_model, logprobs=True, top_logprobs=2, **chat("Hello", max_tokens=8)
    )
    (choice,) = found.choices
    assert choice.logprobs is not None
    said = b"".join(bytes(one.bytes or []) for one in choice.logprobs.content or [])
    assert said.decode(errors="replace").strip() == choice.message.content
    assert all(len(one.top_logprobs) == 2 for one in choice.logprobs.content or [])


def test_equal_seeds_give_equal_choices_and_other_choices_differ(api: openai.OpenAI) -> None:
    fields = chat("Hello", temperature=1, seed=3, n=3)
    first, second = (api.chat.completions.create(model="handbook", **fields) for _ in range(2))
    said = [choice.message.content for choice in first.choices]
    assert said == [choice.message.content for choice in second.choices]
    assert len(set(said)) == 3


def test_what_does_not_fit_the_context_is_refused(api: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.create(model="handbook", **chat("x" * 200))
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


def test_many_streams_at_once_lose_no_chunk_and_keep_their_order(api: openai.OpenAI, station: Station) -> None:
    def asked(number: int) -> dict[str, Any]:
        model = "handbook" if number % 2 else station.settings.base_model
        return {"model": model, **chat(f"No {number}", max_tokens=16)}

    async def streamed(client: openai.AsyncOpenAI, number: int) -> str:
        stream = await client.chat.completions.create(stream=True, **asked(number))
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def whole(client: openai.AsyncOpenAI, number: int) -> str | None:
        return (await client.chat.completions.create(**asked(number))).choices[0].message.content

    async def all_by(way: Callable[[openai.AsyncOpenAI, int], Awaitable[str | None]]) -> list[str | None]:
        beat(station.rows, "inference")
        async with station.async_client() as client:
            return await asyncio.gather(*(way(client, number) for number in range(NUM_STREAMS)))

    said = asyncio.run(all_by(streamed))
    assert said == asyncio.run(all_by(whole))
    assert len(set(said)) > NUM_STREAMS // 2
