"""The evaluation job in a process that ends as `kill -9` ends it, once in each of its stages."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.orm import Session

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.settings import Settings
from shared.storage import Storage
from worker.evaluation.job import run_evaluation

RUNNER = "tests.evaluation.dying:run"
NUM_DEATHS = 3
KEPT_LOSS = 7.0  # what the dying leave on disk, and nobody would compute
KEPT_ANSWER = "as it was said before"


def run(job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool]) -> None:
    """The first attempt dies when it has kept losses, the second when it has kept an answer, the third when the report
    lies in its place and the job has not ended; what the first two have kept is marked."""
    folder, final = storage.checkpoints(job.claim.job_id), storage.evaluation(job.claim.job_id)
    is_due = {
        1: lambda: _mark_loss(folder / "losses"),
        2: lambda: _mark_answer(folder / "answers.jsonl"),
        3: final.exists,
    }.get(job.claim.attempt, lambda: False)

    def die_if_due() -> None:
        if is_due():
            os.kill(os.getpid(), signal.SIGKILL)

    def look() -> bool:
        die_if_due()
        return should_stop()

    class Dying(Database):
        @contextmanager
        def write(self) -> Iterator[Session]:
            die_if_due()
            with super().write() as session:
                yield session

    run_evaluation(ClaimedJob(Dying(settings.resolved_database_url), job.claim), settings, storage, look)


def _mark_loss(folder: Path) -> bool:
    """False where nothing is kept yet."""
    for path in folder.glob("*.json"):
        (number, _, num_tokens, num_correct), *others = json.loads(path.read_text())
        path.write_text(json.dumps([[number, KEPT_LOSS * num_tokens, num_tokens, num_correct], *others]))
        return True
    return False


def _mark_answer(path: Path) -> bool:
    """False where nothing is kept yet."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if not lines or not lines[0].endswith(b"\n"):
        return False
    marked = json.loads(lines[0]) | {"answer": KEPT_ANSWER}
    path.write_bytes(b"".join([json.dumps(marked).encode() + b"\n", *lines[1:]]))
    return True
