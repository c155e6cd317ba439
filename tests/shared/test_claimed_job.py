"""What a worker writes of its job."""

from __future__ import annotations

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.repositories.jobs import JobRepository

NAN, INFINITE = float("nan"), float("inf")


def test_progress_and_events_with_such_numbers_are_stored(database: Database) -> None:
    with database.write() as session:
        JobRepository(session).create("team", "training", {})
        claim = JobRepository(session).claim_next("training", "tests", 60.0)
    assert claim is not None
    job = ClaimedJob(database, claim)
    job.report({"train_loss": NAN, "step": 3})
    job.log("Step 3", type="metrics", data={"gradient_norm": INFINITE, "step": 3})
    with database.read() as session:
        row = JobRepository(session).get("team", claim.job_id)
        (event,) = JobRepository(session).events(claim.job_id, type="metrics")
        assert row.progress == {"train_loss": None, "step": 3}
        assert event.data == {"gradient_norm": None, "step": 3}
