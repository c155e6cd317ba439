"""The log of a sweep's study, in the database: what Optuna's `JournalStorage` writes and reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optuna.storages.journal import BaseJournalBackend
from sqlalchemy.orm import Session

from shared.claimed_job import ClaimedJob
from shared.repositories.jobs import JobRepository
from shared.repositories.sweeps import SweepRepository


class SweepJournal(BaseJournalBackend):
    """Whoever has claimed the sweep's job is the only one who writes, so the log is read once and then held.

    What Optuna appends becomes lasting at the end of `saving()`, in one transaction with what is done there: a trial
    and its training job are both there, or neither. An attempt that fails to save must end: it knows more than the
    table, from which the next one goes on.
    """

    def __init__(self, job: ClaimedJob) -> None:
        self._job = job
        with job.database.read() as session:
            self._entries = SweepRepository(session).entries(job.claim.job_id)
        self._num_saved = len(self._entries)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """The entries from this number on."""
        return self._entries[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds entries, as they will be read back from the table."""
        self._entries += json.loads(json.dumps(logs))

    @contextmanager
    def saving(self) -> Iterator[Session]:
        """A session that also saves what was appended before and within; raises `Superseded`, before anything is
        done, if the claim is lost."""
        with self._job.database.write() as session:
            JobRepository(session).hold(self._job.claim)
            yield session
            SweepRepository(session).append(self._job.claim, self._entries[self._num_saved :])
        self._num_saved = len(self._entries)
