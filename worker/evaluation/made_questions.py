"""Questions that an evaluation makes from documents: kept as a document of their own, and never learned from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.orm import Session

from shared.errors import DocumentError
from shared.evaluation_parameters import MakeQuestions
from shared.made_files import enter_made_file
from shared.models import Document
from shared.question_files import QUESTIONS, Question
from shared.repositories.documents import DocumentRepository
from shared.storage import disk_errors
from worker.data.extraction import ExtractionLimits
from worker.data.job import text_of
from worker.data.texts import ExtractedText
from worker.evaluation.questions import make_questions
from worker.evaluation.questions.written import PROMPT_VERSION
from worker.evaluation.work import Work
from worker.evaluation.writing import can_write, write_questions

FILENAME = "made-questions.jsonl"


def made_document_id(work: Work) -> str | None:
    """The document with the questions that the parameters ask for; None if none are asked for, or none can be made.

    The next attempt asks the same: its answers lie beside them. Raises `Stopped` and `DiskFull`.
    """
    wanted = work.parameters.make_questions
    if wanted is None:
        return None
    kept = work.folder / "made-questions"
    if kept.is_file():
        return kept.read_text(encoding="ascii")
    texts = _texts(work, wanted.document_ids)
    made, method = _made(work, wanted, texts)
    if not made:
        work.note("No questions could be made: the documents hold no sentence that tells a date, an amount or a name.")
        return None
    document_id = _kept(work, made)
    with disk_errors():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(document_id, encoding="ascii")
    work.remark(f"{len(made)} questions were made from {len(texts)} documents ({method}): {document_id}.")
    return document_id


def _made(work: Work, wanted: MakeQuestions, texts: Sequence[ExtractedText]) -> tuple[list[Question], str]:
    """The questions, and how they were made; by rule where no model is asked for, or none answers."""
    if wanted.method == "model" or (wanted.method is None and can_write(work.settings)):
        written = write_questions(work, texts, wanted.num_questions)
        if written:
            return written, f"by {work.settings.question_model}, prompt {PROMPT_VERSION}"
    return make_questions(texts, wanted.num_questions, work.parameters.seed), "cloze"


def _texts(work: Work, document_ids: Sequence[str]) -> list[ExtractedText]:
    """Of those that are there and can be read; the setup says of the others why they cannot."""
    limits = ExtractionLimits(work.settings.extraction_timeout_seconds, work.settings.extraction_memory_bytes)
    with work.job.database.read() as session:
        documents = DocumentRepository(session).those_there(work.project, document_ids)
    found = []
    for document in documents:
        work.check()
        try:
            found.append(text_of(document, limits, work.storage))
        except DocumentError as error:
            work.job.log(f"No questions are made from {document.filename}: {error.detail}", level="warn")
    return found


def _kept(work: Work, made: Sequence[Question]) -> str:
    staged = work.storage.stage()
    try:
        with disk_errors():
            staged.write_text("".join(_line(one) for one in made), encoding="utf-8", newline="\n")
        with work.job.database.write() as session:
            return _entered(work, session, staged).id
    finally:
        staged.unlink(missing_ok=True)


def _entered(work: Work, session: Session, staged: Path) -> Document:
    return enter_made_file(
        session, work.storage, project_id=work.project, purpose=QUESTIONS, filename=FILENAME, staged=staged
    )


def _line(question: Question) -> str:
    return json.dumps({"question": question.question, "answer": question.answer}, ensure_ascii=False) + "\n"
