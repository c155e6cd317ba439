"""Whether an inference worker lives is looked up once for those that ask at the same moment, and again soon after."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from api.answers.liveness import InferenceLiveness
from shared.database import Database
from shared.errors import NoInferenceWorker
from shared.models import Worker
from shared.repositories.workers import WorkerRepository


def test_a_worker_that_was_seen_just_now_is_not_looked_for_again_and_one_that_left_is_missed_soon(
    database: Database,
) -> None:
    seconds = 0.0
    liveness = InferenceLiveness(lambda: seconds)
    with database.write() as session:
        with pytest.raises(NoInferenceWorker):
            liveness.check(session)
        assert not liveness.is_fresh  # nothing is remembered of nobody
        WorkerRepository(session).beat("inference@here:1", "inference", {})
        liveness.check(session)
        session.execute(delete(Worker))
        seconds = 0.04
        liveness.check(session)
        assert liveness.is_fresh
        seconds = 0.06
        assert not liveness.is_fresh
        with pytest.raises(NoInferenceWorker):
            liveness.check(session)
