"""How far a batch is, and who works on it."""

from __future__ import annotations

import time
from typing import Any

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.repositories.workers import WorkerRepository
from worker.batches.batch import Checked
from worker.batches.output import OutputFile

REPORT_SECONDS = 1.0


class Capacity:
    """Knows how many questions the inference workers can use."""

    def __init__(self, database: Database, max_batch_size: int) -> None:
        self._database = database
        self._max_batch_size = max_batch_size
        self.num_workers = 0

    def limit(self) -> int:
        """Twice what the workers answer at once, so that they never wait for the next line."""
        return 2 * self._max_batch_size * max(1, self.num_workers)

    def count_workers(self) -> int:
        """Looks how many inference workers live."""
        with self._database.read() as session:
            self.num_workers = WorkerRepository(session).count_alive().get("inference", 0)
        return self.num_workers


class Reporting:
    """Says how far the batch is, once a second at most; what it raises (`Superseded`) ends the batch."""

    def __init__(self, job: ClaimedJob, output: OutputFile, capacity: Capacity, checked: Checked) -> None:
        self._job = job
        self._output = output
        self._capacity = capacity
        self._checked = checked
        self._num_before = len(output.done)
        self._tokens_before = output.tally.completion_tokens
        self._started_at = time.monotonic()
        self._due_at = 0.0
        self._had_workers: bool | None = None
        job.log(f"Answering {checked.num_lines} lines, of which {self._num_before} have their answer")

    def if_due(self) -> None:
        if time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + REPORT_SECONDS
        had_workers, self._had_workers = self._had_workers, self._capacity.count_workers() > 0
        if had_workers != self._had_workers:
            waits = "No inference worker is running; the batch waits for one"
            self._job.log("Inference workers answer the lines" if self._had_workers else waits)
        self._job.report(self.progress())

    def progress(self) -> dict[str, Any]:
        """What is counted at this moment."""
        seconds = max(1e-3, time.monotonic() - self._started_at)
        done, tally = len(self._output.done), self._output.tally
        rate = (done - self._num_before) / seconds
        return {
            **self._checked.about,
            "step": done,
            "total_steps": self._checked.num_lines,
            "failed": tally.failed,
            "tokens_per_second": round((tally.completion_tokens - self._tokens_before) / seconds, 1),
            "seconds_left": round((self._checked.num_lines - done) / rate, 1) if rate else None,
            "inference_workers": self._capacity.num_workers,
        }
