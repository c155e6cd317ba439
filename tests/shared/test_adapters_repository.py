"""Versions are numbered without gaps or doubles, and the alias moves as told."""

from __future__ import annotations

import threading

import pytest

from shared.database import Database
from shared.errors import AdapterNotFound, IllegalTransition, VersionInUse, VersionNotFound
from shared.ids import new_id
from shared.models import AdapterVersion
from shared.promotion_policy import PromotionMode, PromotionPolicy, decide
from shared.repositories.adapters import AdapterRepository


def publish(database: Database, name: str = "handbook") -> int:
    version = AdapterVersion(id=new_id("version-"), base_model="demo", metrics={}, config={}, size_bytes=1)
    with database.write() as session:
        return AdapterRepository(session).publish("default", name, version).number


def live(database: Database, name: str = "handbook") -> int | None:
    with database.read() as session:
        return AdapterRepository(session).resolve("default", name, None).number


def test_a_published_version_is_live_and_the_next_number(database: Database) -> None:
    assert [publish(database), publish(database)] == [1, 2]
    assert live(database) == 2


def test_a_held_version_moves_nothing_and_no_rollback_goes_to_it(database: Database) -> None:
    def hold(mode: PromotionMode) -> int:
        version = AdapterVersion(id=new_id("version-"), base_model="demo", metrics={}, config={}, size_bytes=1)
        with database.write() as session:
            decision = decide(PromotionPolicy(mode=mode))
            return AdapterRepository(session).publish("default", "handbook", version, decision=decision).number

    assert hold("manual") == 1
    with database.read() as session:
        assert AdapterRepository(session).get("default", "handbook").live_number is None
    assert hold("always") == 2
    assert publish(database) == 3
    assert hold("manual") == 4
    assert live(database) == 3
    with database.write() as session:
        adapters = AdapterRepository(session)
        adapter = adapters.get("default", "handbook")
        assert [one.number for one in adapters.earlier(adapter)] == [2]
        assert [move.action for move in adapters.history(adapter)] == ["hold", "publish", "publish", "hold"]
        assert [move.decision is None for move in adapters.history(adapter)] == [False, True, False, False]
        found = adapters.live_version("default", "handbook")
        assert found is not None
        assert found.number == 3
        assert adapters.live_version("default", "nobody") is None
        assert adapters.rollback("default", "handbook", "worse").live_number == 2
        with pytest.raises(IllegalTransition):
            adapters.rollback("default", "handbook", "again")


def test_a_policy_waits_for_the_first_version_and_is_not_an_adapter_by_itself(database: Database) -> None:
    with database.write() as session:
        adapters = AdapterRepository(session)
        assert adapters.policy("default", "handbook", "manual").mode == "manual"
        adapters.set_policy("default", "handbook", PromotionPolicy(mode="always", min_examples=3))
    with database.read() as session:
        adapters = AdapterRepository(session)
        assert adapters.policy("default", "handbook", "manual") == PromotionPolicy(mode="always", min_examples=3)
        assert adapters.policy("default", "handbook", "always", asked="manual").min_examples == 3
        assert not adapters.page("default", after=None, limit=9)


def test_versions_published_at_once_get_different_numbers(database: Database) -> None:
    numbers: list[int] = []
    threads = [threading.Thread(target=lambda: numbers.append(publish(database))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]


def test_a_rollback_goes_back_step_by_step(database: Database) -> None:
    for _ in range(3):
        publish(database)
    for expected in (2, 1):
        with database.write() as session:
            AdapterRepository(session).rollback("default", "handbook", "worse")
        assert live(database) == expected
    with pytest.raises(IllegalTransition), database.write() as session:
        AdapterRepository(session).rollback("default", "handbook", "worse")
    assert live(database) == 1


def test_promotion_is_recorded_with_its_reason(database: Database) -> None:
    publish(database), publish(database)
    with database.write() as session:
        AdapterRepository(session).promote("default", "handbook", 1, "better tone")
    with database.read() as session:
        adapters = AdapterRepository(session)
        move = adapters.history(adapters.get("default", "handbook"))[0]
    assert (move.action, move.from_number, move.to_number, move.reason) == ("promote", 2, 1, "better tone")


def test_a_live_version_cannot_be_deleted_and_a_deleted_one_is_gone(database: Database) -> None:
    publish(database), publish(database)
    with pytest.raises(VersionInUse), database.write() as session:
        AdapterRepository(session).delete_version("default", "handbook", 2)
    with database.write() as session:
        AdapterRepository(session).delete_version("default", "handbook", 1)
    with pytest.raises(VersionNotFound), database.read() as session:
        AdapterRepository(session).resolve("default", "handbook", 1)
    assert publish(database) == 3


def test_an_unknown_adapter_is_not_found(database: Database) -> None:
    publish(database)
    for project, name in (("default", "other"), ("other", "handbook")):
        with pytest.raises(AdapterNotFound), database.read() as session:
            AdapterRepository(session).resolve(project, name, None)
