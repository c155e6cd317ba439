"""A batch of the native dialect: lines with options of their own over those of the batch."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from shared.base_models import check_allowed
from shared.batch_parameters import BatchLine, BatchParameters
from shared.claimed_job import ClaimedJob
from shared.errors import InvalidRequest, NotFound
from shared.messages import Question, Sampling
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.streams import replies_of
from worker.batches.batch import Answered, Checked
from worker.batches.lines import count_lines, parse_line
from worker.batches.output import Outcome, Result
from worker.batches.questions import plain_result

QUESTION_SECONDS = 24 * 3600.0  # until a question ends unanswered: it may wait long behind interactive ones


class NativeBatch:
    """Its answers are the job's output as they came."""

    def __init__(self, job: ClaimedJob, settings: Settings) -> None:
        self._job = job
        self._settings = settings
        self._parameters = BatchParameters.model_validate(job.claim.parameters)
        self._models: dict[tuple[str, int | None], str] = {}

    @property
    def document_id(self) -> str:
        return self._parameters.document_id

    def check(self, source: Path) -> Checked:
        return Checked(count_lines(source))

    def parse(self, raw: bytes) -> BatchLine:
        return parse_line(raw)

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

    def result_of(self, number: int, line: BatchLine, outcome: Outcome) -> Result:
        return plain_result(number, line, outcome)

    def is_over(self) -> bool:
        return False

    def end(self, answered: Answered) -> None:
        result = {"lines": answered.num_lines, **asdict(answered.output.tally)}
        with self._job.database.write() as session:
            jobs = JobRepository(session)
            jobs.report_progress(self._job.claim, answered.progress)
            jobs.succeed(self._job.claim, result)

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
