"""What somebody brings who comes from the hosted API: the official client and a script; only `base_url` is another."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from openai import AsyncOpenAI, NotFoundError, OpenAI

from examples import openai_client
from tests.end_to_end.conftest import RunningStack

LINES = Path("examples/handbook/documents/chat-answers.jsonl")


@pytest.fixture
def client(stack: RunningStack) -> OpenAI:
    """Takes no answer that its types do not describe, and tries nothing twice."""
    url = f"{stack.http.base_url}/v1"
    return OpenAI(base_url=url, api_key="unused", max_retries=0, _strict_response_validation=True)


def test_the_example_fine_tunes_asks_and_answers_a_batch(client: OpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    openai_client.main([str(LINES), "--model", "demo", "--suffix", "example", "--pause"], client)
    said = capsys.readouterr().out
    assert "Fine-tuning job started" in said
    assert "trained ft:demo:default:example:" in said
    assert said.count("checkpoint ") >= 3
    assert "metrics step,train_loss" in said
    assert "answer:" in said
    assert "tokens)" in said
    assert "question-0" in said


def test_the_example_runs_with_the_newest_client_of_the_first_major(stack: RunningStack) -> None:
    older = Path(sys.prefix) / "openai-1"
    assert older.is_dir(), "`make setup` installs it"
    environment = {
        "PYTHONPATH": f"{older}:.",
        "OPENAI_BASE_URL": f"{stack.http.base_url}/v1",
        "OPENAI_API_KEY": "unused",
    }
    version = [sys.executable, "-c", "import openai; print(openai.__version__)"]
    assert subprocess.run(version, env=environment, capture_output=True, text=True).stdout.startswith("1.")
    command = [sys.executable, "examples/openai_client.py", str(LINES), "--model", "demo", "--epochs", "1"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "trained ft:demo:default:example:" in ran.stdout


def test_a_model_that_nobody_trained_is_not_found(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as caught:
        openai_client.ask(client, "ft:demo:default:none:abc", "Who?")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_sixty_four_streams_at_once_lose_and_mix_nothing(stack: RunningStack, client: OpenAI) -> None:
    async def streamed(asker: AsyncOpenAI, number: int) -> str:
        stream = await asker.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": f"Question {number}?"}],
            max_tokens=12,
            temperature=0,
            stream=True,
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    async def all_streamed() -> list[str]:
        url = f"{stack.http.base_url}/v1"
        async with AsyncOpenAI(base_url=url, api_key="unused", max_retries=0, timeout=60) as asker:
            return await asyncio.gather(*(streamed(asker, number) for number in range(64)))

    texts = asyncio.run(all_streamed())
    for number in (0, 21, 63):
        alone = client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": f"Question {number}?"}],
            max_tokens=12,
            temperature=0,
        )
        assert texts[number] == alone.choices[0].message.content
    assert all(texts)
