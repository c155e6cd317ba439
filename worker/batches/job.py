"""The batch job: the lines of a document go to the inference workers, their answers into a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from shared.claimed_job import ClaimedJob
from shared.disk import DiskRoom
from shared.errors import DocumentNotFound, Superseded
from shared.repositories.documents import DocumentRepository
from shared.settings import Settings
from shared.storage import Storage
from worker.batches.answering import answer_lines
from worker.batches.batch import Answered, Batch
from worker.batches.lines import Line, unanswered_lines
from worker.batches.native import NativeBatch
from worker.batches.openai_batch import OpenAIBatch
from worker.batches.output import OutputFile
from worker.batches.questions import BackgroundQuestions, connect
from worker.batches.reporting import Capacity, Reporting

_SPACE_PER_BYTE = 4  # of the questions: their answers, and the files that are made of them in the end

LineType = TypeVar("LineType", bound=Line)


def run_batch(
    job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool] = lambda: False
) -> None:
    """Works on a claimed batch job until every line has its answer or its error, or until `should_stop`: the next
    attempt goes on behind the last whole line of the output. Errors of the tree propagate to the caller."""
    if "openai" in job.claim.parameters:
        _run(OpenAIBatch(job, settings, storage), job, settings, storage, should_stop)
    else:
        _run(NativeBatch(job, settings), job, settings, storage, should_stop)


def _run(
    batch: Batch[LineType], job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool]
) -> None:
    client = connect(settings.resolved_redis_url)
    capacity = Capacity(job.database, settings.max_batch_size)
    questions = BackgroundQuestions(client, job.claim.job_id, batch.question, capacity.limit, result_of=batch.result_of)
    try:
        _answer(batch, job, settings, storage, questions, capacity, should_stop)
    except Superseded:
        if job.is_cancelled():  # else another attempt waits for these answers
            questions.close(is_abandoned=True)
        raise
    finally:
        client.close()


def _answer(
    batch: Batch[LineType],
    job: ClaimedJob,
    settings: Settings,
    storage: Storage,
    questions: BackgroundQuestions[LineType],
    capacity: Capacity,
    should_stop: Callable[[], bool],
) -> None:
    """Answers the lines, and ends the job unless it is to go on later."""
    source = _source(job, storage, batch.document_id)
    checked = batch.check(source)
    DiskRoom.of(settings).require(_SPACE_PER_BYTE * source.stat().st_size, "The batch")
    with OutputFile(storage.batch_output(job.claim.job_id)) as output:
        report = Reporting(job, output, capacity, checked)
        is_whole = answer_lines(
            questions,
            unanswered_lines(source, output.done),
            output,
            batch.parse,
            should_stop=lambda: should_stop() or batch.is_over(),
            on_progress=report.if_due,
        )
        if is_whole or batch.is_over():
            questions.close(is_abandoned=not is_whole)  # first: once the job has ended, this process may be ended too
            batch.end(Answered(source, output, is_whole, report.progress()))


def _source(job: ClaimedJob, storage: Storage, document_id: str) -> Path:
    with job.database.read() as session:
        document = DocumentRepository(session).get(job.claim.project_id, document_id)
    path = storage.document(document.id)
    if not path.is_file():
        raise DocumentNotFound("The document's file is gone from the data folder; upload it again.")
    return path
