"""The batch job: the lines of a document go to the inference workers, their answers into a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shared.base_models import check_allowed
from shared.batch_parameters import BatchLine, BatchParameters
from shared.claimed_job import ClaimedJob
from shared.errors import DocumentNotFound, InvalidRequest, NotFound, Superseded
from shared.messages import Question, Sampling
from shared.repositories.adapters import AdapterRepository
from shared.repositories.documents import DocumentRepository
from shared.repositories.jobs import JobRepository
from shared.repositories.workers import WorkerRepository
from shared.settings import Settings
from shared.storage import Storage
from shared.streams import replies_of
from worker.batches.answering import answer_lines
from worker.batches.lines import count_lines, unanswered_lines
from worker.batches.output import OutputFile
from worker.batches.questions import BackgroundQuestions, connect

QUESTION_SECONDS = 24 * 3600.0  # until a question ends unanswered: it may wait long behind interactive ones
REPORT_SECONDS = 1.0


def run_batch(
    job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool] = lambda: False
) -> None:
    """Works on a claimed batch job until every line has its answer or its error, or until `should_stop`: the next
    attempt goes on behind the last whole line of the output. Errors of the tree propagate to the caller."""
    parameters = BatchParameters.model_validate(job.claim.parameters)
    source = _source(job, storage, parameters.document_id)
    client = connect(settings.resolved_redis_url)
    asking = Asking(job, settings, parameters)
    questions = BackgroundQuestions(client, job.claim.job_id, asking.question, asking.limit)
    try:
        with OutputFile(storage.batch_output(job.claim.job_id)) as output:
            report = Reporting(job, output, asking, count_lines(source))
            lines = unanswered_lines(source, output.done)
            if answer_lines(questions, lines, output, should_stop=should_stop, on_progress=report.if_due):
                report.succeed()
                questions.close(is_abandoned=False)
    except Superseded:
        with job.database.read() as session:
            is_over = JobRepository(session).get(job.claim.project_id, job.claim.job_id).status == "cancelled"
        if is_over:  # else another attempt waits for these answers
            questions.close(is_abandoned=True)
        raise
    finally:
        client.close()


def _source(job: ClaimedJob, storage: Storage, document_id: str) -> Path:
    with job.database.read() as session:
        document = DocumentRepository(session).get(job.claim.project_id, document_id)
    path = storage.document(document.id)
    if not path.is_file():
        raise DocumentNotFound("The document's file is gone from the data folder; upload it again.")
    return path


class Asking:
    """Makes a batch's questions, and knows how many of them the workers can use."""

    def __init__(self, job: ClaimedJob, settings: Settings, parameters: BatchParameters) -> None:
        self._job = job
        self._settings = settings
        self._parameters = parameters
        self._models: dict[tuple[str, int | None], str] = {}
        self.num_workers = 0

    def limit(self) -> int:
        """Twice what the workers answer at once, so that they never wait for the next line."""
        return 2 * self._settings.max_batch_size * max(1, self.num_workers)

    def count_workers(self) -> int:
        """Looks how many inference workers live."""
        with self._job.database.read() as session:
            self.num_workers = WorkerRepository(session).count_alive().get("inference", 0)
        return self.num_workers

    def question(self, question_id: str, line: BatchLine) -> Question:
        """Raises `InvalidRequest` for options that do not go together or a model that is not allowed."""
        options = line.options_over(self._parameters)
        sent_at = time.time()
        sampling = {name: value for name, value in options.options().items() if name in Sampling.model_fields}
        return Question(
            id=question_id,
            project_id=self._job.claim.project_id,
            reply_to=replies_of(self._job.claim.job_id),
            turns=line.turns,
            sampling=Sampling.model_validate(sampling),
            model=self._model(options.model, options.adapter, options.version),
            adapter=options.adapter,
            version=options.version,
            fallback=self._settings.fallback if options.fallback is None else options.fallback,
            deadline=sent_at + QUESTION_SECONDS,
            asked_at=sent_at,
            is_background=True,
        )

    def _model(self, model: str | None, adapter: str | None, version: int | None) -> str:
        """The base model: the one that is asked, or the one under the adapter, which may answer in its place."""
        if model is not None:
            return check_allowed(model, (*self._settings.allowed_models, self._settings.base_model))
        if adapter is None:
            raise InvalidRequest("The line names neither an adapter nor a model.")
        if (adapter, version) not in self._models:
            self._models[adapter, version] = self._base_of(adapter, version)
        return self._models[adapter, version]

    def _base_of(self, adapter: str, version: int | None) -> str:
        with self._job.database.read() as session, suppress(NotFound):  # the worker refuses, or falls back and says so
            return AdapterRepository(session).resolve(self._job.claim.project_id, adapter, version).base_model
        return self._settings.base_model


class Reporting:
    """Says how far the batch is, once a second at most; what it raises (`Superseded`) ends the batch."""

    def __init__(self, job: ClaimedJob, output: OutputFile, asking: Asking, num_lines: int) -> None:
        self._job = job
        self._output = output
        self._asking = asking
        self._num_lines = num_lines
        self._num_before = len(output.done)
        self._tokens_before = output.tally.completion_tokens
        self._started_at = time.monotonic()
        self._due_at = 0.0
        self._had_workers: bool | None = None
        job.log(f"Answering {num_lines} lines, of which {self._num_before} have their answer")

    def if_due(self) -> None:
        if time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + REPORT_SECONDS
        had_workers, self._had_workers = self._had_workers, self._asking.count_workers() > 0
        if had_workers != self._had_workers:
            waits = "No inference worker is running; the batch waits for one"
            self._job.log("Inference workers answer the lines" if self._had_workers else waits)
        self._job.report(self._progress())

    def succeed(self) -> None:
        """Ends the job, with the sums over its lines."""
        tally = asdict(self._output.tally)
        with self._job.database.write() as session:
            jobs = JobRepository(session)
            jobs.report_progress(self._job.claim, self._progress())
            jobs.succeed(self._job.claim, {"lines": self._num_lines, **tally})

    def _progress(self) -> dict[str, Any]:
        seconds = max(1e-3, time.monotonic() - self._started_at)
        done, tally = len(self._output.done), self._output.tally
        rate = (done - self._num_before) / seconds
        return {
            "step": done,
            "total_steps": self._num_lines,
            "failed": tally.failed,
            "tokens_per_second": round((tally.completion_tokens - self._tokens_before) / seconds, 1),
            "seconds_left": round((self._num_lines - done) / rate, 1) if rate else None,
            "inference_workers": self._asking.num_workers,
        }
