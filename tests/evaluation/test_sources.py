"""Columns that answer from the documents: by the inference workers, or by the endpoint of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shared.evaluation_parameters import Column
from shared.models import Document
from shared.repositories.documents import DocumentRepository
from shared.retrieval.index import IndexReader
from shared.retrieval.prompt import NOTHING_FOUND, prompt_of
from shared.retrieval.searching import Retrieval
from shared.storage import sha256_of
from tests.evaluation.conftest import BASE, V1, Bench, generated
from tests.retrieval.indexing import FakeEndpoint, fake_endpoint, index_all

RAG = Column(backend="rag")
RAG_V1 = V1.model_copy(update={"backend": "rag"})
QUESTIONS = [("Where is the office?", "In Delft."), ("Zebra xylophone?", "No.")]

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with fake_endpoint() as endpoint:
        yield endpoint


def index(bench: Bench, *texts: str) -> None:
    """Documents of these texts, indexed."""
    with bench.database.write() as session:
        for number, text in enumerate(texts):
            path = bench.storage.document(f"text-{number}")
            path.write_text(text)
            row = Document(
                id=path.name, project_id="default", filename=f"{number}.txt", kind="txt", size_bytes=len(text),
                sha256=sha256_of(path),
            )  # fmt: skip
            DocumentRepository(session).add(row)
    index_all(bench.settings, bench.database)


def prompt(bench: Bench, question: str, most: int = 4) -> str:
    retrieval = Retrieval(bench.database, IndexReader(bench.settings.resolved_retrieval_url), None)
    hits = retrieval.search("default", question, 4).hits
    assert len(hits) >= most or most == 4
    return prompt_of(question, hits[:most])


def test_rag_columns_answer_from_what_is_found_and_say_where_nothing_is(bench: Bench, gpt2: Path) -> None:
    index(bench, "The office is in Delft.", "An office has a kitchen.")
    document = bench.upload_questions(QUESTIONS)
    with bench.answering():
        found = bench.evaluate(RAG, RAG_V1, BASE, setup_job_id=None, question_document_ids=[document])
    first, second = found.rows
    asked = prompt(bench, "Where is the office?")
    assert {"rag", "rag + handbook@1", "base"} == first.answers.keys()
    folder = bench.storage.version("version-handbook-1")
    assert (first.answers["rag"].text or "").strip() == generated(gpt2, None, asked, 6)
    assert (first.answers["rag + handbook@1"].text or "").strip() == generated(gpt2, folder, asked, 6)
    assert first.answers["rag"].metrics["prompt_tokens"] == len(f"Question: {asked}\nAnswer:")
    assert first.answers["rag"].metrics["latency_ms"] > 0
    assert second.answers["rag"].text == second.answers["rag + handbook@1"].text == NOTHING_FOUND
    assert not {"latency_ms", "prompt_tokens"} & second.answers["rag"].metrics.keys()
    assert "loss" not in first.answers["rag"].metrics
    assert found.report.baseline == "rag"


def test_sources_that_are_too_long_for_the_model_are_halved_until_they_fit(bench: Bench, gpt2: Path) -> None:
    index(bench, *(f"The office {number}. {'Office walls. ' * 30}" for number in range(4)))
    document = bench.upload_questions(QUESTIONS[:1])
    with bench.answering():
        found = bench.evaluate(RAG, setup_job_id=None, question_document_ids=[document])
    (row,) = found.rows
    asked = prompt(bench, "Where is the office?", most=1)
    assert len(prompt(bench, "Where is the office?", most=2)) > 1024 > len(asked)
    assert row.answers["rag"].error is None
    assert (row.answers["rag"].text or "").strip() == generated(gpt2, None, asked, 6)


def test_advice_comes_with_a_recommendation_and_knows_which_questions_were_trained_on(bench: Bench) -> None:
    index(bench, "The office is in Delft.")
    document = bench.upload_questions([("What is alpha 1?", "It is 1alpha."), ("What is alpha 99?", "Nobody knows.")])
    options = {"question_document_ids": [document], "purpose": "advice", "max_new_tokens": 1, "max_questions": 2}
    with bench.answering():
        found = bench.evaluate(BASE, RAG, V1, RAG_V1, **options)
    assert [row.seen for row in found.of("questions")] == [True, False]
    assert found.report.recommendation is not None
    assert found.report.recommendation.choice == "too few questions to tell"
    assert found.report.costs["handbook@1"] == {"size_bytes": 1.0}


def test_without_an_index_the_rag_columns_are_left_out_with_a_note(bench: Bench) -> None:
    found = bench.evaluate(BASE, RAG, RAG_V1, max_questions=0, purpose="advice")
    assert {one.label for one in found.report.columns} == {"base"}
    assert found.report.notes == (
        "rag, rag + handbook@1: left out: No document is indexed yet; upload some with POST /documents.",
        "There is no recommendation: it takes the base model, rag, one version, and rag with the version.",
    )


def test_the_endpoint_of_the_settings_writes_the_plain_rag_column_from_as_much_as_fits(
    bench: Bench, endpoint: FakeEndpoint
) -> None:
    settings = {"openai_base_url": endpoint.url, "rag_model": "writer"}
    bench = replace(bench, settings=bench.settings.model_copy(update=settings))
    index(bench, *(f"The office {number}." for number in range(4)))
    endpoint.most_characters = len(prompt(bench, "Where is the office?", most=2))
    document = bench.upload_questions(QUESTIONS[:1])
    (row,) = bench.evaluate(RAG, setup_job_id=None, question_document_ids=[document]).rows
    assert row.answers["rag"].text == "As the sources say [1]."
    metrics = row.answers["rag"].metrics
    assert (metrics["prompt_tokens"], metrics["length"], metrics["truncated"]) == (7.0, 5.0, 0.0)
    assert metrics["latency_ms"] > 0
    sent = [body["messages"][0]["content"] for _, _, body in endpoint.requests]
    assert sent[-1] == prompt(bench, "Where is the office?", most=2)
    assert len(sent) == 2
    assert endpoint.requests[-1][2]["temperature"] == 0.0


def test_an_endpoint_that_is_away_costs_the_answers_and_not_the_report(bench: Bench, endpoint: FakeEndpoint) -> None:
    settings = {"openai_base_url": endpoint.url, "rag_model": "writer"}
    bench = replace(bench, settings=bench.settings.model_copy(update=settings))
    index(bench, "The office is in Delft.")
    endpoint.status = 500
    document = bench.upload_questions(QUESTIONS[:1])
    with bench.answering():
        found = bench.evaluate(BASE, RAG, setup_job_id=None, question_document_ids=[document])
    assert found.rows[0].answers.keys() == {"base"}
    assert found.report.notes == (
        "The endpoint at OPENAI_BASE_URL did not answer as it should, so 1 of 1 answers are missing; evaluate again.",
    )
    assert len(endpoint.requests) == 3
