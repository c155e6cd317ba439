from __future__ import annotations

import json

from shared.evaluation_parameters import Column
from shared.repositories.documents import DocumentRepository
from tests.evaluation.conftest import BASE, V1, Bench

SENTENCE = "The company number {n} was founded in {year} by two friends from the harbour."


def _chapter(bench: Bench) -> str:
    """A document of sentences that can be asked for."""
    text = "\n\n".join(SENTENCE.format(n=number, year=1900 + number) for number in range(30))
    document_id = bench.upload(text, name="chapter.txt")
    with bench.database.write() as session:
        DocumentRepository(session).get("default", document_id).purpose = "documents"
    return document_id


def test_made_questions_are_asked_kept_and_named(bench: Bench) -> None:
    asked = {"document_ids": [_chapter(bench)], "num_questions": 12}
    with bench.answering():
        found = bench.evaluate(BASE, make_questions=asked, setup_job_id=None)
        again = bench.evaluate(BASE, make_questions=asked, setup_job_id=None)
    assert len(found.of("questions")) == 12
    assert all(row.question is not None and "____" in row.question for row in found.rows)
    with bench.database.read() as session:
        kept = DocumentRepository(session).page("default", after=None, limit=10, purpose="questions")
        assert [one.filename for one in kept] == ["made-questions.jsonl"]
        assert DocumentRepository(session).all_ids("default") == [asked["document_ids"][0]]
    lines = [json.loads(line) for line in bench.storage.document(kept[0].id).read_text().splitlines()]
    assert [(row.question, row.wanted) for row in found.rows] == [(one["question"], one["answer"]) for one in lines]
    assert found.report.notes == again.report.notes
    assert found.report.notes == (f"12 questions were made from 1 documents (cloze): {kept[0].id}.",)


def test_two_columns_are_recommended_nothing(bench: Bench) -> None:
    with bench.answering():
        found = bench.evaluate(BASE, V1, question_document_ids=[bench.upload_questions()])
    assert found.report.recommendation is None
    assert Column(adapter="handbook", version=1).label in found.rows[0].answers
