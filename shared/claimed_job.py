"""A claimed job, as the process that works on it sees it: what to do, and where to report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from shared.database import Database
from shared.repositories.jobs import Claim, JobRepository

EventType = Literal["message", "metrics"]
Level = Literal["info", "warn", "error"]


@dataclass(frozen=True)
class ClaimedJob:
    """Every report names the attempt: after a takeover it changes nothing and raises `Superseded`."""

    database: Database
    claim: Claim

    def report(self, progress: dict[str, Any]) -> None:
        """Replaces the job's progress (JSON-able), and tells the supervisor that the job is alive."""
        with self.database.write() as session:
            JobRepository(session).report_progress(self.claim, progress)

    def log(
        self, message: str, *, type: EventType = "message", level: Level = "info", data: dict[str, Any] | None = None
    ) -> None:
        """Appends an event. `metrics` events carry numbers in `data`; a message is one sentence."""
        with self.database.write() as session:
            JobRepository(session).add_event(self.claim, type=type, level=level, message=message, data=data or {})

    def is_cancelled(self) -> bool:
        """Whether nobody wants the job any more; a superseded attempt may also have made way for another."""
        with self.database.read() as session:
            return JobRepository(session).get(self.claim.project_id, self.claim.job_id).status == "cancelled"
