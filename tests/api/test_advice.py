"""Advice over HTTP: three jobs in a row, four columns, and nothing tested that was learned."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from shared.database import Database
from shared.evaluation_parameters import Column, EvaluationParameters
from shared.models import Job
from shared.repositories.jobs import JobRepository
from tests.api.conftest import Upload

QUESTIONS = '{"question": "How many days of leave?", "answer": "28"}\n'


def advise(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/fine-tuning/advice", json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def job(rows: Database, job_id: str) -> Job:
    with rows.read() as session:
        return JobRepository(session).get("default", job_id)


def questions_of(client: TestClient) -> str:
    sent = {"files": ("questions.jsonl", QUESTIONS.encode())}
    answer = client.post("/documents", files=sent, data={"purpose": "questions"})
    return str(answer.json()["data"][0]["id"])


def evaluation_of(rows: Database, made: dict[str, Any]) -> EvaluationParameters:
    return EvaluationParameters.model_validate(job(rows, made["evaluation_job_id"]).parameters)


def test_each_job_waits_for_the_one_before_and_the_evaluation_has_the_four_columns(
    client: TestClient, rows: Database, upload: Upload
) -> None:
    document = upload("Everybody has 28 days of leave.\n", "leave.txt")
    made = advise(client, num_epochs=2)
    training, wanted = job(rows, made["training_job_id"]), evaluation_of(rows, made)
    assert (training.waits_for, training.parameters["adapter"]) == (made["setup_job_id"], "advice")
    assert training.parameters["config"]["num_epochs"] == 2
    assert job(rows, made["evaluation_job_id"]).waits_for == made["training_job_id"]
    tuned = {"adapter": "advice", "training_job_id": made["training_job_id"]}
    assert wanted.columns == (Column(), Column(backend="rag"), Column(**tuned), Column(backend="rag", **tuned))
    assert (wanted.purpose, wanted.setup_job_id) == ("advice", made["setup_job_id"])
    assert wanted.make_questions is not None
    assert (wanted.make_questions.document_ids, wanted.make_questions.num_questions) == ((document,), 40)


def test_questions_that_are_tested_are_not_learned(client: TestClient, rows: Database, upload: Upload) -> None:
    document, questions = upload("Everybody has 28 days of leave.\n", "leave.txt"), questions_of(client)
    made = advise(client, question_document_id=questions)
    assert job(rows, made["setup_job_id"]).parameters["document_ids"] == [document]
    wanted = evaluation_of(rows, made)
    assert (wanted.question_document_ids, wanted.make_questions) == ((questions,), None)
    refused = client.post("/fine-tuning/advice", json={"document_ids": [document, questions]})
    assert (refused.status_code, refused.json()["param"]) == (422, "document_ids")


def test_a_file_and_made_questions_go_together(client: TestClient, rows: Database, upload: Upload) -> None:
    upload("Everybody has 28 days of leave.\n", "leave.txt")
    wanted = evaluation_of(rows, advise(client, question_document_id=questions_of(client), num_questions=25))
    assert len(wanted.question_document_ids) == 1
    assert wanted.make_questions is not None
    assert wanted.make_questions.num_questions == 25


def test_questions_may_be_asked_for_by_rule_where_a_model_is_configured(
    client: TestClient, rows: Database, upload: Upload
) -> None:
    upload("Everybody has 28 days of leave.\n", "leave.txt")
    methods = []
    for body in ({}, {"question_method": "cloze"}):
        made = evaluation_of(rows, advise(client, **body)).make_questions
        assert made is not None
        methods.append(made.method)
    assert methods == [None, "cloze"]  # None: whatever the worker has


def test_what_cannot_be_is_refused_and_leaves_no_job(client: TestClient, upload: Upload) -> None:
    assert client.post("/fine-tuning/advice").json()["error"] == "no_documents"
    document = upload("Everybody has 28 days of leave.\n", "leave.txt")
    for body, param in (
        ({"question_document_id": document}, "question_document_id"),
        ({"question_document_id": "file-none"}, "question_document_id"),
        ({"num_questions": 0}, "num_questions"),
        ({"train": False}, "train"),
        ({"question_method": "model"}, "question_method"),  # none is configured
        ({"question_method": "guess"}, "question_method"),
    ):
        refused = client.post("/fine-tuning/advice", json=body)
        assert 400 <= refused.status_code < 500, body
        assert refused.json()["param"] == param, body
    assert client.get("/fine-tuning/jobs").json()["data"] == []


def test_the_same_key_starts_the_work_once(client: TestClient, upload: Upload) -> None:
    upload("Everybody has 28 days of leave.\n", "leave.txt")
    answers = [client.post("/fine-tuning/advice", headers={"Idempotency-Key": "one"}).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(client.get("/fine-tuning/jobs").json()["data"]) == 3
