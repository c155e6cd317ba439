"""Versions change under load: every question is answered, and each by one version, the one that the answer names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.database import Database
from shared.messages import Answer
from shared.models import AdapterVersion
from shared.repositories.adapters import AdapterRepository
from shared.settings import Settings
from tests.inference.serving import Serving, serving
from tests.inference.tiny import add_nan, flip_a_byte, publish
from tests.waiting import until
from worker.adapter_files import MANIFEST, Manifest, list_files

NUM_TOKENS = 30


@pytest.fixture
def settings(tmp_path: Path, redis_url: str, gpt2: Path) -> Settings:
    return Settings(data_dir=tmp_path, redis_url=redis_url, base_model=str(gpt2))


@pytest.fixture
def served(settings: Settings) -> Iterator[Serving]:
    with serving(settings) as served:
        yield served


def publish_version(served: Serving, seed: int) -> str:
    return publish(served.database, served.storage, Path(served.settings.base_model), "default", seed)


def promote(database: Database, number: int) -> None:
    with database.write() as session:
        AdapterRepository(session).promote("default", "default", number, "test")


def texts_by_version(served: Serving, prompt: str, *numbers: int) -> dict[int | None, str]:
    """What each version says by itself."""
    answers = [served.client.answer(prompt, adapter="default", version=one, num_tokens=NUM_TOKENS) for one in numbers]
    assert len({one.text for one in answers}) == len(numbers), "versions that say the same would show nothing"
    return {one.version: one.text for one in answers}


def test_what_runs_ends_with_its_version_and_what_is_asked_after_the_promotion_gets_the_new_one(
    served: Serving,
) -> None:
    publish_version(served, 1), publish_version(served, 2)
    alone = texts_by_version(served, "Hi", 1, 2)
    promote(served.database, 1)
    later: list[str] = []

    def promote_in_the_middle(num_steps: int) -> None:
        if not later:
            promote(served.database, 2)
            later.append(served.client.ask("Hi", adapter="default", num_tokens=NUM_TOKENS))

    served.engine.after_step = promote_in_the_middle
    answers = [served.client.answer("Hi", adapter="default", num_tokens=NUM_TOKENS), served.client.final(later[0])]
    assert [(one.version, one.text) for one in answers if isinstance(one, Answer)] == [(1, alone[1]), (2, alone[2])]
    assert [one.fallback_reason for one in answers if isinstance(one, Answer)] == [None, None]


def test_promotions_under_load_lose_no_question_and_mix_no_answer(served: Serving) -> None:
    publish_version(served, 1), publish_version(served, 2)
    prompts = ["Hi", "What is AI?", "x"]
    alone = {prompt: texts_by_version(served, prompt, 1, 2) for prompt in prompts}
    asked: list[tuple[str, str]] = []

    def swap_and_ask(num_steps: int) -> None:
        """A question every other step, each with another version live."""
        if num_steps % 2 == 0 and len(asked) < 24:
            promote(served.database, 1 + len(asked) % 2)
            prompt = prompts[len(asked) % 3]
            asked.append((prompt, served.client.ask(prompt, adapter="default", num_tokens=NUM_TOKENS)))

    served.engine.after_step = swap_and_ask
    num_before = len(served.engine.steps)
    served.client.answer("Hi", num_tokens=NUM_TOKENS)
    until(lambda: len(asked) == 24)
    answers = served.answers([question_id for _, question_id in asked])
    for prompt, question_id in asked:
        answer = answers[question_id]
        assert (answer.text, answer.fallback) == (alone[prompt][answer.version], False)
    assert {answer.version for answer in answers.values()} == {1, 2}
    largest = max(len(step) for step in served.engine.steps[num_before:])
    assert largest > 1, "they must have run beside each other"


def test_a_promoted_version_that_is_damaged_is_not_served_and_the_one_before_goes_on(served: Serving) -> None:
    publish_version(served, 1)
    before = served.client.answer(adapter="default")
    version_id = publish_version(served, 2)
    flip_a_byte(served.storage.version(version_id) / "adapter_model.safetensors")
    after = served.client.answer(adapter="default", fallback=False)
    assert (after.version, after.text, after.fallback) == (1, before.text, False)
    assert "Version 2 of 'default' cannot be served" in (after.fallback_reason or "")
    with served.database.read() as session:
        assert "damaged" in (session.get_one(AdapterVersion, version_id).broken_reason or "")


def test_a_promoted_version_that_fails_only_when_it_runs_is_replaced_by_the_one_before(served: Serving) -> None:
    publish_version(served, 1)
    before = served.client.answer(adapter="default")
    version_id = publish_version(served, 2)
    folder = served.storage.version(version_id)
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    add_nan(folder)
    (folder / MANIFEST).write_text(manifest.model_copy(update={"files": list_files(folder)}).to_json())
    after = served.client.answer(adapter="default", fallback=False)
    assert (after.version, after.text, after.fallback) == (1, before.text, False)
    assert "finite" in (after.fallback_reason or "")
    with served.database.read() as session:
        assert "finite" in (session.get_one(AdapterVersion, version_id).broken_reason or "")
