"""What a training will take, said before it starts, with how it is known."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from shared.database import Database
from shared.models import Dataset, DatasetDocument
from shared.repositories.experience import ExperienceRepository
from shared.repositories.jobs import JobRepository
from tests.api.conftest import Upload, publish

PATH = "/fine-tuning/estimate"
TEXT = "Some words to learn. " * 200  # 4,200 bytes
METRICS = {"trained_tokens": 6000, "seconds": 3.0, "peak_memory_bytes": 500_000_000}


def train(rows: Database, document: str, *, tokens: int, examples: int) -> None:
    """As if a training of the model `demo` had ended."""
    with rows.write() as session:
        job = JobRepository(session).create("default", "setup", {})
        statistics = {"tokens": tokens, "examples": examples}
        session.add(
            Dataset(
                id="dataset-1",
                project_id="default",
                job_id=job.id,
                fingerprint="f",
                base_model="demo",
                statistics=statistics,
            )
        )
        session.flush()
        session.add(DatasetDocument(dataset_id="dataset-1", document_id=document))
    publish(rows, "earlier", dataset_id="dataset-1", metrics=METRICS)


def estimate(client: TestClient, **body: Any) -> dict[str, Any]:
    found = client.post(PATH, json={"model": "demo", **body})
    assert found.status_code == 200, found.text
    return dict(found.json())


def test_before_any_training_what_can_be_reckoned_is_and_the_rest_says_why_not(
    client: TestClient, upload: Upload
) -> None:
    upload(TEXT)
    found = estimate(
        client, max_length=100, batch_size=2, gradient_accumulation_steps=1, num_epochs=3, validation_split=0
    )
    assert (found["documents"]["value"], found["bytes"]["value"]) == (1, len(TEXT))
    assert (found["tokens"]["value"], found["tokens"]["basis"]) == (1050, "reckoned")
    assert (found["examples"]["value"], found["steps"]["value"]) == (11, 18)
    for name in ("memory_bytes", "seconds"):
        assert (found[name]["value"], found[name]["basis"]) == (None, "unknown")
        assert "No training of this base model" in found[name]["note"]
    assert found["problems"] == []


def test_earlier_trainings_of_the_model_are_what_is_measured(
    client: TestClient, rows: Database, upload: Upload
) -> None:
    train(rows, upload(TEXT), tokens=2100, examples=70)
    found = estimate(client, num_epochs=2, validation_split=0.5)
    assert (found["tokens"]["value"], found["tokens"]["basis"]) == (2100, "measured")
    assert (found["examples"]["value"], found["examples"]["basis"]) == (70, "measured")
    assert (found["seconds"]["value"], found["seconds"]["basis"]) == (1.1, "measured")
    assert found["memory_bytes"]["value"] == 500_000_000


def test_another_models_trainings_say_nothing(database: Database) -> None:
    with database.read() as session:
        assert ExperienceRepository(session).of_model("demo") == []


def test_bytes_of_a_pdf_tell_nothing_about_its_text(client: TestClient) -> None:
    client.post("/documents", files=[("files", ("a.pdf", b"%PDF-1.4 something"))])
    found = estimate(client)
    assert (found["tokens"]["basis"], found["steps"]["basis"]) == ("unknown", "unknown")
    assert "pdf" in found["tokens"]["note"]


@pytest.mark.parametrize(
    ("text", "body", "code"),
    [
        (None, {}, "no_documents"),
        (TEXT, {"model": "nobody/nothing-allowed"}, "model_not_allowed"),
        (TEXT, {"document_ids": ["file-nothing"]}, "document_not_found"),
        ("Short.", {}, "little_text"),
    ],
)
def test_what_setup_would_refuse_is_said(
    client: TestClient, upload: Upload, text: str | None, body: dict[str, Any], code: str
) -> None:
    if text is not None:
        upload(text)
    assert [one["code"] for one in estimate(client, **body)["problems"]] == [code]


def test_nothing_is_started(client: TestClient, upload: Upload) -> None:
    upload(TEXT)
    estimate(client)
    assert client.get("/fine-tuning/jobs").json()["data"] == []


def test_what_is_no_setup_is_refused_as_there(client: TestClient) -> None:
    assert client.post(PATH, json={"num_epochs": 0}).status_code == 422
