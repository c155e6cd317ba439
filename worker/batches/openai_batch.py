"""A batch of the OpenAI dialect: requests of one endpoint, and files of their answers and errors."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from shared.batch_parameters import OpenAIBatchParameters
from shared.chat_answers import ChatCompletion, Completion, chat_completion, refusal, text_completion
from shared.chat_requests import ChatRequest, CompletionRequest
from shared.claimed_job import ClaimedJob
from shared.errors import BatchExpired, FinetunedError, InvalidRequest
from shared.made_files import enter_made_file
from shared.messages import Answer, Question
from shared.repositories.batches import BatchRepository
from shared.repositories.jobs import JobRepository
from shared.repositories.model_names import ModelNameRepository, NamedModel
from shared.settings import Settings
from shared.storage import Storage
from shared.streams import replies_of
from worker.batches.batch import Answered, Checked
from worker.batches.lines import unanswered_lines
from worker.batches.openai_files import StagedFiles, staged_files
from worker.batches.openai_lines import OpenAILine, check_file, read_line
from worker.batches.output import Outcome, Result

LOOK_SECONDS = 1.0  # how often it is looked whether the batch was asked to end


class OpenAIBatch:
    """Ends when every line has its answer or error, when it was asked to, and when its completion window does."""

    def __init__(
        self, job: ClaimedJob, settings: Settings, storage: Storage, clock: Callable[[], float] = time.time
    ) -> None:
        self._job = job
        self._storage = storage
        self._clock = clock
        self._parameters = OpenAIBatchParameters.model_validate(job.claim.parameters)
        self._allowed_models = (*settings.allowed_models, settings.base_model)
        self._named: dict[str, NamedModel] = {}
        self._is_cancelling = False
        self._look_at = 0.0

    @property
    def document_id(self) -> str:
        return self._parameters.document_id

    def check(self, source: Path) -> Checked:
        """Raises `InvalidRequest` for a file that breaks the rules; what it breaks is in the job's progress."""
        found = check_file(source, self._parameters.openai.endpoint)
        if found.problems:
            self._job.report({"errors": [problem.to_dict() for problem in found.problems]})
            raise InvalidRequest(f"The input file cannot be answered: {found.problems[0].message}")
        return Checked(found.num_lines, {"model": found.model})

    def parse(self, raw: bytes) -> OpenAILine:
        return read_line(raw)

    def question(self, question_id: str, line: OpenAILine) -> Question:
        """Raises `InvalidRequest` for a body that the endpoint would refuse, and `ModelNotFound`."""
        request = line.request
        named = self._model(request.model)
        return Question(
            id=question_id,
            project_id=self._job.claim.project_id,
            reply_to=replies_of(self._job.claim.job_id),
            turns=request.turns if isinstance(request, ChatRequest) else (),
            prompt=None if isinstance(request, ChatRequest) else request.prompts[0],
            sampling=request.sampling(),
            model=named.base_model,
            adapter=named.adapter,
            version=named.version,
            checkpoint=named.checkpoint,
            fallback=request.fallback,
            deadline=self._parameters.openai.expires_at,
            asked_at=self._clock(),
            is_background=True,
        )

    def result_of(self, number: int, line: OpenAILine, outcome: Outcome) -> Result:
        """With the body with which the endpoint would have answered."""
        if isinstance(outcome, FinetunedError):
            field = "messages" if isinstance(line.request, ChatRequest) else "prompt"
            return Result(number, line.custom_id, refusal(outcome, field))
        return Result(number, line.custom_id, outcome, self._body(line.request, outcome).model_dump(mode="json"))

    def is_over(self) -> bool:
        """Whether it was asked to end, or its time is over."""
        if not self._is_cancelling and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            with self._job.database.read() as session:
                self._is_cancelling = BatchRepository(session).is_cancelling(self._job.claim.job_id)
        return self._is_cancelling or self._clock() >= self._parameters.openai.expires_at

    def end(self, answered: Answered) -> None:
        """Makes the files and enters them with the job's end, in one transaction."""
        progress = {**answered.progress, "finalizing_at": int(self._clock())}
        self._job.report(progress)
        is_expired = not answered.is_whole and not self._is_cancelling
        expired = _ids_of_the_rest(answered) if is_expired else iter(())
        staged = staged_files(self._storage, self._job.claim.job_id, answered.output.path, expired)
        with staged as files, self._job.database.write() as session:
            JobRepository(session).report_progress(self._job.claim, progress)  # raises for a lost claim
            result = {**_counts(answered, is_expired=is_expired), **self._enter(session, files)}
            self._settle(JobRepository(session), result, is_whole=answered.is_whole)

    def _body(self, request: ChatRequest | CompletionRequest, answer: Answer) -> ChatCompletion | Completion:
        key = hashlib.sha256(answer.question_id.encode()).hexdigest()[:24]
        if isinstance(request, ChatRequest):
            return chat_completion(f"chatcmpl-{key}", self._clock(), request, answer)
        return text_completion(f"cmpl-{key}", self._clock(), request, (answer,))

    def _settle(self, jobs: JobRepository, result: dict[str, Any], *, is_whole: bool) -> None:
        if is_whole:
            jobs.succeed(self._job.claim, result)
        elif self._is_cancelling:
            jobs.cancel_held(self._job.claim, result)
        else:
            jobs.fail(self._job.claim, BatchExpired(), result)

    def _enter(self, session: Session, files: StagedFiles) -> dict[str, str | None]:
        return {
            "output_file_id": self._entered(session, files.answers, "output"),
            "error_file_id": self._entered(session, files.errors, "error"),
        }

    def _entered(self, session: Session, staged: Path | None, what: str) -> str | None:
        if staged is None:
            return None
        claim, seconds = self._job.claim, self._parameters.openai.output_expires_after_seconds
        document = enter_made_file(
            session,
            self._storage,
            project_id=claim.project_id,
            purpose="batch_output",
            filename=f"{claim.job_id}_{what}.jsonl",
            staged=staged,
        )
        if seconds is not None:
            document.expires_at = self._clock() + seconds
        return document.id

    def _model(self, name: str) -> NamedModel:
        if name not in self._named:
            with self._job.database.read() as session:
                names = ModelNameRepository(session, self._allowed_models)
                self._named[name] = names.resolve(self._job.claim.project_id, name)
        return self._named[name]


def _counts(answered: Answered, *, is_expired: bool) -> dict[str, Any]:
    """What the lines came to; one that came too late has failed."""
    tally = answered.output.tally
    num_expired = answered.num_lines - len(answered.output.done) if is_expired else 0
    counts = {**asdict(tally), "failed": tally.failed + num_expired}
    return {"lines": answered.num_lines, **counts}


def _ids_of_the_rest(answered: Answered) -> Iterator[tuple[int, str]]:
    for number, raw in unanswered_lines(answered.source, answered.output.done):
        yield number, read_line(raw).custom_id
