"""One attempt at an evaluation job: what it was asked, where it keeps what is done, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shared.claimed_job import ClaimedJob
from shared.errors import FinetunedError
from shared.evaluation_parameters import EvaluationParameters
from shared.settings import Settings
from shared.storage import Storage

REPORT_SECONDS = 1.0


class Stopped(Exception):
    """The attempt was asked to stop; the next one goes on behind what is on disk."""


class Progress:
    """Says how far the job is, once a second at most; what it raises (`Superseded`) ends the attempt.

    Steps count losses, answers and verdicts; seconds are those that the present stage has left.
    """

    def __init__(self, job: ClaimedJob, steps_by_stage: Mapping[str, int]) -> None:
        self._job = job
        self._sizes = dict(steps_by_stage)
        self._stage, self._num_before, self._num_kept = "", 0, 0
        self._started_at = self._due_at = 0.0

    def begin(self, stage: str, num_kept: int = 0) -> None:
        """The next stage, of which earlier attempts have made `num_kept` steps."""
        self._num_before += self._sizes.get(self._stage, 0)
        self._stage, self._num_kept = stage, num_kept
        self._started_at, self._due_at = time.monotonic(), 0.0
        self.step(num_kept)

    def step(self, num_done: int) -> None:
        """So many steps of the present stage are done."""
        now = time.monotonic()
        if now < self._due_at:
            return
        self._due_at = now + REPORT_SECONDS
        rate = (num_done - self._num_kept) / max(1e-3, now - self._started_at)
        left = self._sizes[self._stage] - num_done
        self._job.report(
            {
                "stage": self._stage,
                "step": self._num_before + num_done,
                "total_steps": sum(self._sizes.values()),
                "seconds_left": round(left / rate, 1) if rate > 0 else None,
            }
        )


@dataclass
class Work:
    """`folder` holds what is done until the job ends. `notes` are sentences about what was left out and why, and
    `errors` what was in the way."""

    job: ClaimedJob
    settings: Settings
    storage: Storage
    parameters: EvaluationParameters
    should_stop: Callable[[], bool]
    notes: list[str] = field(default_factory=list)
    errors: list[FinetunedError] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.storage.checkpoints(self.job.claim.job_id)

    @property
    def project(self) -> str:
        return self.job.claim.project_id

    def note(self, sentence: str, error: FinetunedError | None = None) -> None:
        """For the report and the job's events."""
        self.notes.append(sentence)
        if error is not None:
            self.errors.append(error)
        self.job.log(sentence, level="warn", data={} if error is None else {"code": error.code})

    def remark(self, sentence: str) -> None:
        """For the report and the job's events, where nothing is wrong."""
        self.notes.append(sentence)
        self.job.log(sentence)

    def check(self) -> None:
        """Raises `Stopped` if the attempt was asked to stop."""
        if self.should_stop():
            raise Stopped
