"""The Redis side of a worker: questions pulled from the stream, replies written, dead workers' questions claimed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis import Redis, ResponseError
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.streams import (
    ABORTS,
    BACKGROUND_QUESTIONS,
    CLAIM_AFTER_SECONDS,
    GROUP,
    MAX_REPLIES,
    QUESTIONS,
    REPLY_TTL_SECONDS,
)

Client = Any  # redis-py's own types name every answer of every protocol at once

FORGET_CONSUMER_MS = 3_600_000
STREAMS = (QUESTIONS, BACKGROUND_QUESTIONS)
HANDED_BACK_MS = 24 * 3_600_000  # "idle" time of an entry that its owner gives up: anybody may claim it at once


@dataclass(frozen=True)
class Delivery:
    """One entry; `num_deliveries` counts the workers that it was given to, `waited_seconds` is its age by Redis's clock
    alone: those of two machines need not agree. Its id names its stream too, and is for `QuestionStream` alone to
    read."""

    entry_id: str
    payload: str
    num_deliveries: int = 1
    waited_seconds: float = 0.0


class QuestionStream:
    """One worker's membership in the consumer group of both streams: of questions that somebody waits for, and of
    background questions. Every call may raise `redis.RedisError`; after one, `join` makes the group anew if Redis lost
    it."""

    def __init__(self, client: Client, worker_id: str, claim_after_seconds: float = CLAIM_AFTER_SECONDS) -> None:
        self._redis = client
        self._worker_id = worker_id
        self._claim_after_ms = int(claim_after_seconds * 1000)
        self._aborts: Any = None

    def join(self) -> None:
        """Makes the group if need be, from the stream's beginning, and listens for aborts."""
        for stream in STREAMS:
            try:
                self._redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        if self._aborts is not None:
            self._aborts.close()
        self._aborts = self._redis.pubsub(ignore_subscribe_messages=True)
        self._aborts.subscribe(ABORTS)

    def leave(self) -> None:
        """Leaves the group; only for a worker that owns no entry any more, else they would be lost."""
        for stream in STREAMS:
            self._redis.xgroup_delconsumer(stream, GROUP, self._worker_id)

    def pull(self, count: int, wait_seconds: float | None, *, is_background: bool = False) -> list[Delivery]:
        """New questions, at most `count`; waits for the first if told to."""
        stream = BACKGROUND_QUESTIONS if is_background else QUESTIONS
        block = None if wait_seconds is None else max(1, int(wait_seconds * 1000))
        answer = self._redis.xreadgroup(GROUP, self._worker_id, {stream: ">"}, count=count, block=block)
        return self._delivered(stream, [entry for _, entries in answer or [] for entry in entries])

    def claim(self, count: int, *, is_background: bool = False) -> list[Delivery]:
        """Questions whose worker has been silent for too long, now this worker's."""
        stream = BACKGROUND_QUESTIONS if is_background else QUESTIONS
        entries = self._redis.xautoclaim(stream, GROUP, self._worker_id, self._claim_after_ms, count=count)[1]
        there = [entry for entry in entries if entry[0] is not None]  # one that was deleted, as Redis 6 shows it
        numbers = [self._num_deliveries(stream, id) for id, _ in there]
        return [
            replace(one, num_deliveries=number)
            for one, number in zip(self._delivered(stream, there), numbers, strict=True)
        ]

    def keep(self, entry_ids: Sequence[str]) -> None:
        """Says that this worker is still at these questions."""
        for stream, ids in _by_stream(entry_ids):
            self._redis.xclaim(stream, GROUP, self._worker_id, 0, ids, justid=True)

    def hand_back(self, entry_ids: Sequence[str]) -> None:
        """Lets others claim these questions at once."""
        for stream, ids in _by_stream(entry_ids):
            self._redis.xclaim(stream, GROUP, self._worker_id, 0, ids, idle=HANDED_BACK_MS, justid=True)

    def aborted(self) -> list[str]:
        """Ids of questions that nobody waits for any more, since the last call."""
        ids = []
        while (message := self._aborts.get_message(timeout=0)) is not None:
            ids.append(str(message["data"]))
        return ids

    def send(self, replies: Iterable[tuple[str, str]], done: Sequence[str]) -> None:
        """Writes (stream, JSON) replies and takes the entries `done` off the stream, all or nothing."""
        with self._redis.pipeline(transaction=True) as pipe:
            streams = set()
            for stream, payload in replies:
                pipe.xadd(stream, {"reply": payload}, maxlen=MAX_REPLIES, approximate=True)
                streams.add(stream)
            for stream in streams:
                pipe.expire(stream, REPLY_TTL_SECONDS)
            for stream, ids in _by_stream(done):
                pipe.xack(stream, GROUP, *ids)
                pipe.xdel(stream, *ids)  # so that the stream's length is what waits or is worked on
            pipe.execute()

    def forget_consumers(self) -> None:
        """Removes members of the group that died long ago and owe nothing."""
        for stream in STREAMS:
            for consumer in self._redis.xinfo_consumers(stream, GROUP):
                if consumer["pending"] == 0 and consumer["idle"] > FORGET_CONSUMER_MS:
                    self._redis.xgroup_delconsumer(stream, GROUP, consumer["name"])

    def close(self) -> None:
        if self._aborts is not None:
            self._aborts.close()
        self._redis.close()

    def _delivered(self, stream: str, entries: Sequence[tuple[str, dict[str, str]]]) -> list[Delivery]:
        """Each with its age: an entry's id begins with Redis's time in milliseconds."""
        if not entries:
            return []
        seconds, microseconds = self._redis.time()
        now_ms = 1000 * seconds + microseconds // 1000
        return [
            Delivery(
                _tagged(stream, id),
                fields.get("question", ""),
                waited_seconds=max(0, now_ms - int(id.partition("-")[0])) / 1000,
            )
            for id, fields in entries
        ]

    def _num_deliveries(self, stream: str, entry_id: str) -> int:
        found = self._redis.xpending_range(stream, GROUP, min=entry_id, max=entry_id, count=1)
        return int(found[0]["times_delivered"]) if found else 1


def _tagged(stream: str, entry_id: str) -> str:
    return f"{STREAMS.index(stream)}/{entry_id}"


def _by_stream(entry_ids: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The entries' own ids by their stream, where there are any."""
    ids = [(stream, [id[2:] for id in entry_ids if id.startswith(f"{index}/")]) for index, stream in enumerate(STREAMS)]
    return [(stream, found) for stream, found in ids if found]


def connect(url: str) -> Client:
    """A client that reports a lost connection instead of retrying by itself: the caller knows what to repeat."""
    options: dict[str, Any] = {"decode_responses": True, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
    return Redis.from_url(url, socket_timeout=10, socket_connect_timeout=3, **options)
