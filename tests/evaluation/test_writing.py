"""Questions that a model writes: real HTTP to an endpoint that plays the model, and what is taken of what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from shared.evaluation_parameters import EvaluationParameters
from shared.question_files import Question
from shared.repositories.documents import DocumentRepository
from tests.evaluation.conftest import BASE, Bench
from tests.retrieval.indexing import FakeEndpoint, fake_endpoint
from worker.data.texts import ExtractedText, Section
from worker.evaluation.made_questions import made_document_id
from worker.evaluation.questions.written import LONGEST_PASSAGE, passages_of, questions_in
from worker.evaluation.work import Stopped, Work

PASSAGE = "Leave\n\nEverybody has **28 days** of leave in a year.\nIngrid Vasko approves it, in 130 hours at most."
GOOD = '{"question": "How much leave is there?", "answer": "28 days"}'
CHAPTER = (
    "The door of room {n}, says the handbook, has the code {code} in this house. " + 30 * "It says no more of it. "
)


def test_questions_are_read_whatever_stands_around_them() -> None:
    for written in (
        GOOD,
        f"[{GOOD},\n{GOOD}]",
        f"Sure!\n```json\n{GOOD}\n```",
        f"{{broken\n{GOOD}\n{{",
        f'{{"a": 1}} {GOOD}',
    ):
        taken, num_dropped = questions_in(written, PASSAGE)
        assert set(taken) == {Question("How much leave is there?", "28 days")}
        assert num_dropped == 0


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How much leave is there?", "30 days"),  # is not said
        ("Within how many hours is it approved?", "30"),  # is a part of 130
        ("Who is Ingrid Vasko?", "Ingrid Vasko"),
        ("What does the passage say about leave?", "28 days"),
        ("How much leave is there?", ""),
        ("How much leave is there?", "."),
        ("", "28 days"),
        ("How much leave is there?", PASSAGE),
    ],
)
def test_what_does_not_stand_in_the_passage_or_gives_itself_away_is_dropped(question: str, answer: str) -> None:
    assert questions_in(json.dumps({"question": question, "answer": answer}), PASSAGE) == ([], 1)


@pytest.mark.parametrize("answer", ["28 days", "28 Days.", "year. Ingrid", " Ingrid  Vasko "])
def test_case_markup_and_line_breaks_make_no_difference(answer: str) -> None:
    written = json.dumps({"question": "What is it?", "answer": answer})
    assert len(questions_in(written, PASSAGE)[0]) == 1


@pytest.mark.parametrize("written", ["", "{" * 100_000, '{"question": 1, "answer": 2}', "[]", "null", '{"a":' * 50_000])
def test_what_is_no_question_is_none(written: str) -> None:
    assert questions_in(written, PASSAGE) == ([], 0)


def test_passages_are_spread_over_the_documents_and_leave_records_out() -> None:
    long = ExtractedText(
        (Section("The office is in Delft, they say. " * 300, "Where"), Section("x" * 300, is_record=True))
    )
    other = ExtractedText((Section("The bakery is in Leiden, they say. " * 10),))
    found = passages_of([long, other, ExtractedText()], 4, seed=0)
    assert found == passages_of([long, other, ExtractedText()], 4, seed=0)
    assert [("Delft" in one, "Leiden" in one) for one in found] == [
        (True, False),
        (False, True),
        (True, False),
        (True, False),
    ]
    assert max(map(len, found)) <= LONGEST_PASSAGE
    assert found[0].startswith("Where\n\n")


class Writer:
    """An endpoint that plays the model, and the job whose questions it writes, as often as that is attempted."""

    def __init__(self, bench: Bench, endpoint: FakeEndpoint) -> None:
        settings = {"openai_base_url": endpoint.url, "question_model": "writer"}
        self.bench = replace(bench, settings=bench.settings.model_copy(update=settings))
        self.endpoint = endpoint
        self.prompts: list[str] = []
        self.work: Work | None = None
        endpoint.respond = self._respond  # type: ignore[method-assign]
        self.ids = [self._chapter(number) for number in range(3)]

    def _chapter(self, number: int) -> str:
        document_id = self.bench.upload(CHAPTER.format(n=number, code=1900 + number), name="chapter.txt")
        with self.bench.database.write() as session:
            DocumentRepository(session).get("default", document_id).purpose = "documents"
        return document_id

    def _respond(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        prompt = body["messages"][0]["content"]
        self.prompts.append(prompt)
        number = next(n for n in range(3) if f"room {n}" in prompt)
        if self.endpoint.status != 200:
            return self.endpoint.status, {}
        asked = [(f"Which code has the door of room {number}?", str(1900 + number)), ("Which one is wrong?", "9999")]
        self.endpoint.text = "\u2028".join(json.dumps({"question": one, "answer": said}) for one, said in asked)
        return FakeEndpoint.respond(self.endpoint, path, body)

    def make(self, stops: bool = False, method: str | None = None, num_questions: int = 3) -> list[dict[str, str]]:
        """What is in the document that is made; nothing if none is."""
        if self.work is None:
            wanted = {"document_ids": self.ids, "num_questions": num_questions, "method": method}
            job = self.bench.claim(self.bench.create(BASE, make_questions=wanted))
            parameters = EvaluationParameters.model_validate(job.claim.parameters)
            self.work = Work(job, self.bench.settings, self.bench.storage, parameters, lambda: stops)
        self.work.should_stop = lambda: stops and bool(self.prompts)
        document_id = made_document_id(self.work)
        lines = [] if document_id is None else self.bench.storage.document(document_id).read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def writer(bench: Bench) -> Iterator[Writer]:
    with fake_endpoint() as endpoint:
        yield Writer(bench, endpoint)


def test_a_configured_model_writes_the_questions_and_the_report_says_so(writer: Writer) -> None:
    made = writer.make()
    assert sorted(one["answer"] for one in made) == ["1900", "1901", "1902"]
    assert len(writer.prompts) == 3
    assert all("Write 2 questions" in prompt for prompt in writer.prompts)
    assert writer.work is not None
    dropped, said = writer.work.notes
    assert dropped.startswith("3 questions that the model wrote were dropped")
    assert said.startswith("3 questions were made from 3 documents (by writer, prompt 1): file-")


def test_the_next_attempt_asks_for_the_rest_alone_and_then_for_nothing(writer: Writer) -> None:
    with pytest.raises(Stopped):
        writer.make(stops=True)
    made = writer.make()
    assert len(made) == 3
    num_asked = len(writer.prompts)
    writer.endpoint.status = 503
    assert writer.make() == made, "what is asked stays the same, also when the model is away by now"
    assert len(writer.prompts) == num_asked


def test_a_model_that_is_away_is_noted_and_questions_are_made_by_rule(writer: Writer) -> None:
    writer.endpoint.status = 503
    assert all("____" in one["question"] for one in writer.make())
    assert writer.work is not None
    assert writer.work.notes[0] == (
        "The model at OPENAI_BASE_URL did not answer, so nothing is asked about 3 of 3 passages."
    )
    assert "(cloze)" in writer.work.notes[-1]


def test_by_rule_means_that_no_model_is_asked(writer: Writer) -> None:
    assert writer.make(method="cloze")
    assert writer.prompts == []


def test_a_model_that_is_asked_for_and_not_configured_is_said(writer: Writer) -> None:
    writer.bench = replace(writer.bench, settings=writer.bench.settings.model_copy(update={"question_model": None}))
    writer.make(method="model")
    assert writer.work is not None
    assert writer.work.notes[0].startswith("No model writes questions: set FINETUNED_QUESTION_MODEL")
