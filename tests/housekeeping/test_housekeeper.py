"""Who sweeps, and when: the setup worker as it starts, and every hour."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from shared.database import Database
from shared.housekeeping.housekeeper import Housekeeper
from shared.queue import Doorbell, celery_app
from shared.settings import Settings
from tests.housekeeping.conftest import House, write
from tests.waiting import until
from worker.jobs.child import forkserver_for
from worker.jobs.reconciler import Reconciler
from worker.jobs.supervisor import Supervisor

RUNNER = "tests.jobs.runners:run"


@pytest.fixture
def chosen(house: House, database_url: str, settings: Settings) -> Settings:
    update = {"data_dir": house.storage.root, "database_url": database_url, "leftover_hours": 0.0}
    return settings.model_copy(update=update)


def _reconciler(house: House, settings: Settings, kind: str) -> Reconciler:
    supervisor = Supervisor(
        kind=kind,
        owner=f"{kind}@test",
        settings=settings,
        database=house.database,
        doorbell=Doorbell(celery_app(settings)),
        runner=RUNNER,
        processes=forkserver_for(RUNNER),
        is_stopping=threading.Event().is_set,
    )
    return Reconciler(supervisor, house.database, settings)


@pytest.fixture
def started(house: House, chosen: Settings) -> Iterator[list[Reconciler]]:
    made: list[Reconciler] = []
    yield made
    for one in made:
        one.stop()
    _wait_until_ended()  # none may outlive its database


def test_a_setup_worker_sweeps_as_it_starts_and_a_training_worker_does_not(
    house: House, chosen: Settings, started: list[Reconciler]
) -> None:
    left = write(house.storage.upload_part("part_left"))
    started.append(_reconciler(house, chosen, "training"))
    started[-1].start()
    assert "housekeeper" not in {thread.name for thread in threading.enumerate()}
    started.append(_reconciler(house, chosen, "setup"))
    started[-1].start()
    until(lambda: not left.exists(), 30)


def test_how_much_was_removed_is_said(house: House, chosen: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write(house.storage.upload_part("part_left"))
    write(house.storage.text("f" * 64))
    Housekeeper(house.database, chosen).tidy()
    assert "swept the data folder: 2 leftovers removed, 10 bytes" in caplog.text


def test_a_database_that_is_away_is_waited_for(chosen: Settings, caplog: pytest.LogCaptureFixture) -> None:
    away = Database("postgresql+pg8000://nobody@127.0.0.1:1/none")
    housekeeper = Housekeeper(away, chosen)
    housekeeper.start()
    until(lambda: "cannot sweep the data folder: DatabaseUnavailable; trying again" in caplog.text, 30)
    housekeeper.stop()
    _wait_until_ended()
    away.close()


def _wait_until_ended() -> None:
    names = {"housekeeper", "look_after_leases", "take_up_waiting"}
    until(lambda: names.isdisjoint(thread.name for thread in threading.enumerate()), 60)
