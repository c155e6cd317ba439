"""Corrections come in with a thumb, and go out as files that our own setup and `/v1/files` take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from shared.database import Database
from shared.settings import Settings
from shared.training_method import DpoMethod, SupervisedMethod
from tests.api.test_access import make_key, sent
from tests.data import tokenizers_of
from tests.databases import migrate
from tests.shared.test_answers_repository import add, row
from worker.base_models.formats import PromptFormat
from worker.data.dataset import build
from worker.data.examples import DatasetOptions, SourceDocument
from worker.data.extractors import extract_here
from worker.data.methods import lessons_of

ANSWERS = "/fine-tuning/answers"
NUM = 12


@pytest.fixture
def keeping(settings: Settings) -> Iterator[TestClient]:
    """The application where texts are kept."""
    migrate(settings.resolved_database_url)
    app = create_app(settings.model_copy(update={"store_queries": True}))
    with TestClient(app, base_url="http://localhost") as client:
        yield client


@pytest.fixture
def rated(keeping: TestClient, settings: Settings) -> Database:
    """Corrected answers, a bad one without a correction, and as many good ones."""
    database = Database(settings.resolved_database_url)
    add(database, *(row(n, query=f"Who has key {n}?", answer=f"Nobody, {n}.") for n in range(2 * NUM + 1)))
    for number in range(2 * NUM + 1):
        right = {"correction": f"Odile has\nkey {number}: “ß”."} if number < NUM else {}
        rate(keeping, number, {"thumb": "down" if number <= NUM else "up", **right})
    return database


def rate(client: TestClient, number: int, body: dict[str, Any]) -> httpx.Response:
    return client.post(f"{ANSWERS}/answer-{number}/feedback", json=body)


def exported(client: TestClient, **query: object) -> tuple[list[dict[str, Any]], int, bytes]:
    found = client.get(f"{ANSWERS}/export", params=query)  # type: ignore[arg-type]
    assert found.status_code == 200, found.text
    lines = [json.loads(line) for line in found.content.splitlines()]
    assert int(found.headers["x-num-lines"]) == len(lines)
    return lines, int(found.headers["x-num-left-out"]), found.content


def test_corrections_are_chat_lines_or_preferred_to_the_answers(keeping: TestClient, rated: Database) -> None:
    lines, num_left_out, _ = exported(keeping, thumb="down", format="supervised")
    assert (len(lines), num_left_out) == (NUM, 1)
    question = {"role": "user", "content": "Who has key 3?"}
    assert {"messages": [question, {"role": "assistant", "content": "Odile has\nkey 3: “ß”."}]} in lines
    lines, num_left_out, _ = exported(keeping, format="preference", adapter="handbook")
    assert (len(lines), num_left_out) == (NUM, 1)
    assert {"prompt": "Who has key 3?", "chosen": "Odile has\nkey 3: “ß”.", "rejected": "Nobody, 3."} in lines


def test_what_was_liked_is_learned_as_it_is(keeping: TestClient, rated: Database) -> None:
    lines, num_left_out, _ = exported(keeping, thumb="up")
    assert (len(lines), num_left_out) == (NUM, 0)
    assert {"role": "assistant", "content": "Nobody, 20."} in [line["messages"][1] for line in lines]
    refused = keeping.get(f"{ANSWERS}/export", params={"thumb": "up", "format": "preference"})
    assert (refused.status_code, refused.json()["param"]) == (422, "format")


@pytest.mark.parametrize(
    ("format", "method"),
    [("supervised", SupervisedMethod()), ("preference", DpoMethod()), ("preference", SupervisedMethod())],
)
def test_what_comes_out_is_taken_as_a_training_file_and_learned(
    keeping: TestClient, rated: Database, tmp_path: Path, format: str, method: SupervisedMethod | DpoMethod
) -> None:
    _, _, content = exported(keeping, format=format)
    sent_file = {"file": ("rated.jsonl", content)}
    taken = keeping.post("/v1/files", files=sent_file, data={"purpose": "fine-tune"})
    assert (taken.status_code, taken.json()["status"]) == (200, "processed")
    path = tmp_path / "rated.jsonl"
    path.write_bytes(content)
    document = SourceDocument("file-1", "sha-1", "rated", extract_here("jsonl", path))
    dataset = build([document], tokenizers_of.gpt2_tokenizer(), PromptFormat.TEXT, DatasetOptions(max_length=96))
    parts = ([item.example for item in side] for side in (dataset.train, dataset.validation))
    lessons = lessons_of(*parts, method)
    assert len(lessons.train) + len(lessons.validation) == NUM


def test_without_kept_texts_a_correction_is_refused_and_the_thumb_alone_is_taken(
    client: TestClient, rows: Database
) -> None:
    add(rows, row(1, query="Who?", answer="Nobody."))
    refused = rate(client, 1, {"thumb": "down", "correction": "Odile."})
    assert (refused.status_code, refused.json()["error"]) == (409, "texts_not_kept")
    assert refused.json()["param"] == "correction"
    assert rate(client, 1, {"thumb": "down"}).json()["thumb"] == "down"
    lines, num_left_out, _ = exported(client)
    assert (lines, num_left_out) == ([], 1)


@pytest.mark.parametrize(
    "body", [{"thumb": "up", "correction": "Odile."}, {"thumb": "down", "correction": " \n"},
             {"thumb": "down", "correction": "a\0b"}, {"thumb": "down", "correction": "x" * 10_001}]
)  # fmt: skip
def test_what_is_no_correction_is_refused(keeping: TestClient, rated: Database, body: dict[str, Any]) -> None:
    assert rate(keeping, 1, body).status_code == 422


@pytest.mark.parametrize("query", [{"thumb": "sideways"}, {"format": "csv"}, {"adapter": "../x"}, {"since": "-1"}])
def test_what_makes_no_sense_is_refused(client: TestClient, query: dict[str, str]) -> None:
    assert client.get(f"{ANSWERS}/export", params=query).status_code == 422


def test_another_project_s_answers_are_not_exported_and_it_takes_the_scope(client: TestClient, rows: Database) -> None:
    stranger, reader, asker = (
        sent(make_key(rows, scope, project=project))
        for scope, project in (("read", "strangers"), ("read", "default"), ("query", "default"))
    )
    add(rows, row(1, query="What is our secret?", answer="It is ours.", thumb="up"))
    path = f"{ANSWERS}/export?thumb=up"
    found = client.get(path, headers=stranger)
    assert (found.status_code, found.content, found.headers["x-num-lines"], found.headers["x-num-left-out"]) == (
        200, b"", "0", "0",
    )  # fmt: skip
    assert b"our secret" in client.get(path, headers=reader).content
    assert client.get(path, headers=asker).status_code == 403


def test_many_answers_come_page_by_page(keeping: TestClient, rated: Database) -> None:
    add(rated, *(row(1000 + n, query=f"{n}?", answer="No.", thumb="up") for n in range(250)))
    lines, _, _ = exported(keeping, thumb="up")
    assert len({line["messages"][0]["content"] for line in lines}) == len(lines) == NUM + 250
