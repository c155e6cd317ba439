"""Ringing: off the path of requests, never more messages than wake anybody, and no matter what Redis does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from api.ringer import Ringer
from shared.queue import ENOUGH_MESSAGES, Doorbell, celery_app
from shared.settings import Settings
from tests.faults.servers import RedisServer


class SlowBell(Doorbell):
    """Waits for each ring until it is let go, as with a Redis that does not answer."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(celery_app(settings))
        self.rung: list[tuple[str, ...]] = []
        self.is_ringing, self.may_ring = threading.Event(), threading.Event()

    def ring(self, kind: str, *job_ids: str) -> bool:
        self.is_ringing.set()
        self.may_ring.wait()
        self.rung.append((kind, *job_ids))
        return True


@pytest.fixture
def bell(settings: Settings) -> Iterator[Doorbell]:
    bell = Doorbell(celery_app(settings))
    yield bell
    bell.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "server")
    server.start()
    yield server
    server.close()


def num_messages(settings: Settings) -> int:
    with redis.Redis.from_url(settings.resolved_redis_url) as client:
        return int(client.llen("setup"))  # type: ignore[arg-type]


def num_others_connected(settings: Settings) -> int:
    with redis.Redis.from_url(settings.resolved_redis_url) as client:
        return len(client.client_list()) - 1  # type: ignore[arg-type]


def test_a_ringer_that_ends_leaves_no_connection(settings: Settings, bell: Doorbell) -> None:
    ringer = Ringer(bell)
    with ringer.running():
        ringer.ring("setup", "job-1")
    assert num_messages(settings) == 1
    assert num_others_connected(settings) == 0


def test_messages_that_nobody_takes_do_not_pile_up(settings: Settings, bell: Doorbell) -> None:
    assert all(bell.ring("setup", f"job-{number}") for number in range(ENOUGH_MESSAGES + 20))
    assert bell.ring("setup", *(f"job-{number}" for number in range(ENOUGH_MESSAGES)))
    assert num_messages(settings) == ENOUGH_MESSAGES


def test_jobs_of_one_kind_are_rung_one_message_each(settings: Settings, bell: Doorbell) -> None:
    assert bell.ring("setup", "job-1", "job-2")
    assert num_messages(settings) == 2


def test_a_bell_whose_redis_was_restarted_rings_at_once(server: RedisServer) -> None:
    bell = Doorbell(celery_app(Settings(redis_url=server.url, _env_file=None)))
    assert bell.ring("setup", "job-1")
    server.kill()
    assert not bell.ring("setup", "job-2")
    server.start()
    assert bell.ring("setup", "job-3")
    server.kill()
    server.start()
    assert bell.ring("setup", "job-4")


def test_a_redis_that_does_not_answer_is_given_up_soon(server: RedisServer) -> None:
    bell = Doorbell(celery_app(Settings(redis_url=server.url, _env_file=None)))
    assert bell.ring("setup", "job-1")
    server.freeze()
    began = time.monotonic()
    assert not bell.ring("setup", "job-2")
    assert time.monotonic() - began < 10
    server.wake()


def test_no_request_waits_for_the_bell(settings: Settings) -> None:
    bell = SlowBell(settings)
    ringer = Ringer(bell)
    with ringer.running():
        ringer.ring("setup", "job-1")
        bell.is_ringing.wait()
        for number in range(2 * ENOUGH_MESSAGES):  # returns, although the bell does not
            ringer.ring("training", f"job-{number}")
        bell.may_ring.set()
    assert bell.rung[0] == ("setup", "job-1")
    assert [rung[0] for rung in bell.rung] == ["setup", "training"]  # together, and no more than wake anybody
    assert len(bell.rung[1]) == 1 + ENOUGH_MESSAGES
