"""Versions in use stay, deleted adapters are gone and their numbers with them, and moves name who made them."""

from __future__ import annotations

import pytest

from shared.database import Database
from shared.errors import AdapterNotFound, VersionInUse, VersionNotFound
from shared.ids import new_id
from shared.models import AdapterVersion
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import JobRepository


def publish(database: Database, name: str = "handbook", *, is_promoted: bool = True) -> int:
    version = AdapterVersion(id=new_id("version-"), base_model="demo", metrics={}, config={}, size_bytes=1)
    with database.write() as session:
        return AdapterRepository(session).publish("default", name, version, is_promoted=is_promoted).number


def delete(database: Database, number: int) -> None:
    with database.write() as session:
        AdapterRepository(session).delete_version("default", "handbook", number)


def delete_adapter(database: Database, *, is_forced: bool = False) -> list[int]:
    with database.write() as session:
        gone = AdapterRepository(session).delete_adapter("default", "handbook", is_forced=is_forced, actor="me")
        return [version.number for version in gone]


@pytest.mark.parametrize("kind", ["batch", "export"])
def test_a_version_that_a_job_names_stays_until_the_job_has_ended(database: Database, kind: str) -> None:
    publish(database), publish(database)
    with database.write() as session:
        job = JobRepository(session).create("default", kind, {"adapter": "handbook", "version": 1})
        JobRepository(session).create("default", "batch", {"adapter": "handbook", "version": None})
        JobRepository(session).create("default", "batch", {"adapter": "other", "version": 1})
        JobRepository(session).create("elsewhere", "batch", {"adapter": "handbook", "version": 1})
    with pytest.raises(VersionInUse, match=job.id):
        delete(database, 1)
    with pytest.raises(VersionInUse, match=job.id):
        delete_adapter(database, is_forced=True)
    with database.write() as session:
        JobRepository(session).cancel("default", job.id)
    delete(database, 1)


def test_a_version_that_an_evaluation_compares_stays_until_that_has_ended(database: Database) -> None:
    publish(database), publish(database), publish(database)
    columns = [{"backend": "model"}, {"backend": "rag", "adapter": "handbook", "version": 1}]
    with database.write() as session:
        job = JobRepository(session).create("default", "evaluation", {"columns": columns})
        JobRepository(session).create("elsewhere", "evaluation", {"columns": [{"adapter": "handbook", "version": 2}]})
    with pytest.raises(VersionInUse, match=f"{job.id}, which is queued, compares it"):
        delete(database, 1)
    delete(database, 2)
    with database.write() as session:
        JobRepository(session).cancel("default", job.id)
    delete(database, 1)


def test_a_version_that_nobody_names_is_deleted(database: Database) -> None:
    publish(database), publish(database)
    with database.write() as session:
        JobRepository(session).create("default", "setup", {"adapter": "handbook", "version": 1})
    delete(database, 1)
    with database.read() as session, pytest.raises(VersionNotFound):
        AdapterRepository(session).resolve("default", "handbook", 1)


def test_an_adapter_with_a_live_version_is_deleted_by_force_alone(database: Database) -> None:
    publish(database), publish(database)
    with pytest.raises(VersionInUse, match="force"):
        delete_adapter(database)
    assert delete_adapter(database, is_forced=True) == [2, 1]
    with database.read() as session:
        adapters = AdapterRepository(session)
        assert list(adapters.page("default", after=None, limit=9)) == []
        for number in (None, 1):
            with pytest.raises(AdapterNotFound):
                adapters.resolve("default", "handbook", number)


def test_a_deleted_name_comes_back_with_new_numbers_and_its_history(database: Database) -> None:
    publish(database)
    delete_adapter(database, is_forced=True)
    assert publish(database, is_promoted=False) == 2
    with database.read() as session:
        adapters = AdapterRepository(session)
        history = adapters.history(adapters.get("default", "handbook"))
        assert adapters.resolve("default", "handbook", None).number == 2
    moves = [(move.action, move.from_number, move.to_number) for move in history]
    assert moves == [("publish", None, 2), ("delete", 1, None), ("publish", None, 1)]
    assert history[1].actor == "me"


def test_a_rollback_does_not_go_back_over_a_deletion(database: Database) -> None:
    publish(database)
    delete_adapter(database, is_forced=True)
    publish(database), publish(database)
    with database.write() as session:
        assert AdapterRepository(session).rollback("default", "handbook", "worse", "me").live_number == 2


def test_every_move_names_who_made_it(database: Database) -> None:
    with database.write() as session:
        job = JobRepository(session).create("default", "training", {})
        row = AdapterVersion(id="v", job_id=job.id, base_model="demo", metrics={}, config={}, size_bytes=1)
        AdapterRepository(session).publish("default", "handbook", row)
    publish(database)
    with database.write() as session:
        AdapterRepository(session).promote("default", "handbook", 1, "shorter", "ada")
        AdapterRepository(session).rollback("default", "handbook", "no", "bob")
    with database.read() as session:
        adapters = AdapterRepository(session)
        moves = [(move.action, move.actor) for move in adapters.history(adapters.get("default", "handbook"))]
    assert moves == [("rollback", "bob"), ("promote", "ada"), ("publish", None), ("publish", f"job {job.id}")]


def test_a_held_version_is_the_named_or_the_live_one(database: Database) -> None:
    publish(database), publish(database)
    with database.write() as session:
        adapters = AdapterRepository(session)
        assert adapters.held("default", "handbook", None).number == 2
        assert adapters.held("default", "handbook", 1).number == 1
        with pytest.raises(AdapterNotFound):
            adapters.held("default", "nobody", None)
