"""The checker of jobs under faults sees each way in which a promise can be broken."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.claimed_job import ClaimedJob
from shared.models import JobEvent
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from tests.faults.checker import Freeze, check_all, check_ends, check_histories, check_lives
from tests.faults.goals import Trial
from tests.faults.installation import Installation, installation
from tests.faults.work import Line, run
from worker.adapter_files import WEIGHTS


def _moves(*moves: tuple[str | None, str, int]) -> list[JobEvent]:
    return [_event(attempt, {"from": before, "to": after}, "status") for before, after, attempt in moves]


def _event(attempt: int, data: dict[str, Any], type: str = "message") -> JobEvent:
    return JobEvent(job_id="ftjob-1", attempt=attempt, type=type, message="", data=data)


_TWO_ATTEMPTS = _moves(
    (None, "queued", 0),
    ("queued", "running", 1),
    ("running", "queued", 1),
    ("queued", "running", 2),
    ("running", "succeeded", 2),
)


def test_a_job_that_was_taken_over_is_well() -> None:
    assert list(check_histories({"ftjob-1": _TWO_ATTEMPTS})) == []
    assert list(check_ends({"ftjob-1": _TWO_ATTEMPTS}, {"ftjob-1": ("succeeded",)})) == []


@pytest.mark.parametrize(
    ("position", "event", "words"),
    [
        (4, _event(1, {}), "attempt 1 was heard of"),  # a zombie's write
        (5, _event(2, {}), "after its end"),
        (4, _event(3, {"from": "running", "to": "running"}, "status"), "was running and moved"),
        (2, _event(1, {"from": "queued", "to": "queued"}, "status"), "was running and moved"),
    ],
)
def test_an_event_that_may_not_be_is_found(position: int, event: JobEvent, words: str) -> None:
    history = [*_TWO_ATTEMPTS[:position], event, *_TWO_ATTEMPTS[position:]]
    assert words in "".join(check_histories({"ftjob-1": history}))


def test_a_job_that_is_lost_or_ended_otherwise_is_found() -> None:
    assert "lost" in next(check_ends({}, {"ftjob-1": ("succeeded",)}))
    assert "is running" in next(check_ends({"ftjob-1": _TWO_ATTEMPTS[:2]}, {"ftjob-1": ("succeeded",)}))


@pytest.mark.parametrize(
    ("last_at", "freezes", "num_found"),
    [
        (9.0, [], 0),
        (10.1, [], 1),  # two trainers live at once
        (20.1, [Freeze(frozenset({7}), 5.0, 20.0)], 0),  # a zombie that has just woken
        (20.1, [Freeze(frozenset({8}), 5.0, 20.0)], 1),
        (25.0, [Freeze(frozenset({7}), 5.0, 20.0)], 1),
    ],
)
def test_two_trainers_that_live_at_once_are_found(last_at: float, freezes: list[Freeze], num_found: int) -> None:
    lines = [Line("ftjob-1", 1, 7, at, "wrote") for at in (1.0, last_at)] + [Line("ftjob-1", 2, 8, 10.0, "started")]
    assert len(list(check_lives(lines, freezes))) == num_found


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Installation]:
    """One training that has succeeded, without a worker."""
    with installation(Trial(tmp_path, "sqlite", 1, 1)) as made:
        made.create("training", {"adapter": "a", "config": {"num_epochs": 2}})
        with made.database.write() as session:
            claim = JobRepository(session).claim_next("training", "somebody", 60.0)
        assert claim is not None
        run(ClaimedJob(made.database, claim), Settings(_env_file=None), made.storage, lambda: False)
        yield made


def _found(made: Installation) -> list[str]:
    return check_all(made, {job.id: ("succeeded",) for job in made.jobs()}, 2, ())


def _version(made: Installation) -> Path:
    (folder,) = (made.data_dir / "adapters").iterdir()
    return folder


def test_a_training_that_was_published_is_well(published: Installation) -> None:
    assert _found(published) == []


def _flip(made: Installation) -> None:
    weights = _version(made) / WEIGHTS
    weights.write_text(weights.read_text()[::-1])


def _publish_half(made: Installation) -> None:
    (made.data_dir / "adapters" / "half").mkdir()


def _publish_none(made: Installation) -> None:
    made.create("training", {})
    with made.database.write() as session:
        jobs = JobRepository(session)
        claim = jobs.claim_next("training", "somebody", 60.0)
        assert claim is not None
        jobs.succeed(claim, {})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_flip, "is not what an undisturbed training gives"),
        (_flip, "its files are not those of its manifest"),
        (lambda made: shutil.rmtree(_version(made)), "is not what an undisturbed training gives"),
        (_publish_half, "half is torn"),
        (_publish_none, "has no version"),
    ],
)
def test_a_version_that_is_torn_or_missing_is_found(
    published: Installation, damage: Callable[[Installation], None], words: str
) -> None:
    damage(published)
    assert any(words in sentence for sentence in _found(published))
