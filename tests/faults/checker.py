"""Whether jobs under faults came to what was promised: read from their events, the versions and the files alone."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import select

from shared.models import AdapterVersion, JobEvent
from tests.faults.installation import Installation
from tests.faults.work import CREATED, Line, read_audit, weights_of
from worker.adapter_files import MANIFEST, WEIGHTS

_ENDED = ("succeeded", "failed", "cancelled")
_LEGAL = {
    "queued": {"running", "paused", "failed", "cancelled"},
    "running": {"queued", "pausing", "succeeded", "failed", "cancelled"},
    "pausing": {"paused", "succeeded", "failed", "cancelled"},
    "paused": {"queued", "failed", "cancelled"},
}
# Between the commit of a claim and the moment at which the trainer that lost it is dead.
OVERLAP_SECONDS = 1.0


@dataclass(frozen=True)
class Freeze:
    """Which processes were frozen, and when by the monotonic clock."""

    pids: frozenset[int]
    began_at: float
    ended_at: float


def histories(events: Sequence[JobEvent]) -> dict[str, list[JobEvent]]:
    """The events of each job, in their order."""
    by_job: dict[str, list[JobEvent]] = defaultdict(list)
    for event in events:
        by_job[event.job_id].append(event)
    return dict(by_job)


def check_histories(by_job: Mapping[str, Sequence[JobEvent]]) -> Iterator[str]:
    """What must hold at every moment, also in the midst of the faults: each move is legal and goes on from the last,
    attempts grow by one, and no attempt is heard of after the next one's claim or after the end."""
    for job_id, history in by_job.items():
        status, attempt = None, 0
        for event in history:
            moved_to = event.data.get("to") if event.type == "status" else None
            if status in _ENDED:
                yield f"{job_id}: an event after its end: {event.message}"
            if event.attempt != attempt + (moved_to == "running"):
                yield f"{job_id}: attempt {event.attempt} was heard of, and {attempt} was due: {event.message}"
            if moved_to is not None and status is not None and not _is_legal(status, event.data):
                yield f"{job_id}: was {status} and moved from {event.data.get('from')} to {moved_to}"
            status, attempt = moved_to or status, event.attempt


def check_ends(by_job: Mapping[str, Sequence[JobEvent]], wanted: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Each job that was answered has ended, in one of the ways that are `wanted` of it."""
    for job_id, ends in wanted.items():
        status = _status(by_job.get(job_id, ()))
        if status is None:
            yield f"{job_id}: lost: it was answered, and there is no event of it"
        elif status not in ends:
            yield f"{job_id}: is {status}, and not {' or '.join(ends)}"


def check_versions(made: Installation, by_job: Mapping[str, Sequence[JobEvent]], num_steps: int) -> Iterator[str]:
    """Each training that succeeded has one version, whole and with the weights that it would have had undisturbed; no
    other job has one; and no folder beside them is torn."""
    with made.database.read() as session:
        versions = {str(one.job_id): one for one in session.scalars(select(AdapterVersion))}
    for job_id, history in by_job.items():
        is_published = job_id.startswith("ftjob-") and _status(history) == "succeeded"
        created = sum(event.message.startswith(CREATED) for event in history)
        if created != is_published:
            yield f"{job_id}: is {_status(history)}, and published {created} times"
        if is_published != (job_id in versions):
            yield f"{job_id}: is {_status(history)}, and has {'a' if job_id in versions else 'no'} version"
    for job_id, version in versions.items():
        weights = made.storage.version(version.id) / WEIGHTS
        if not weights.is_file() or weights.read_text() != weights_of(job_id, num_steps):
            yield f"{job_id}: version {version.id} is not what an undisturbed training gives"
    yield from _check_folders(made.data_dir / "adapters")
    yield from _check_numbers(list(versions.values()))


def orphans(made: Installation) -> int:
    """How many published folders no row names: those of attempts that were killed before their commit."""
    with made.database.read() as session:
        known = set(session.scalars(select(AdapterVersion.id)))
    return sum(folder.name not in known for folder in (made.data_dir / "adapters").iterdir())


def check_lives(lines: Sequence[Line], freezes: Sequence[Freeze]) -> Iterator[str]:
    """No two attempts at one job work at the same time: what was heard of an attempt after the next one had begun can
    only be a frozen one's waking, and is over at once."""
    by_job: dict[str, dict[int, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        by_job[line.job_id][line.attempt].append(line)
    for job_id, attempts in by_job.items():
        for before, after in pairwise(sorted(attempts)):
            next_began_at = min(line.at for line in attempts[after])
            for line in attempts[before]:
                if line.at > next_began_at and not _is_waking(line, next_began_at, freezes):
                    late = line.at - next_began_at
                    yield f"{job_id}: attempt {before} still lived {late:.3f} s after the next began: {line.what}"


def check_all(
    made: Installation, wanted: Mapping[str, Collection[str]], num_steps: int, freezes: Sequence[Freeze]
) -> list[str]:
    """Everything, at the end."""
    by_job = histories(made.events())
    return [
        *check_histories(by_job),
        *check_ends(by_job, wanted),
        *check_versions(made, by_job, num_steps),
        *check_lives(read_audit(made.data_dir), freezes),
    ]


def _status(history: Sequence[JobEvent]) -> str | None:
    moves = [event.data["to"] for event in history if event.type == "status"]
    return moves[-1] if moves else None


def _is_legal(status: str, data: Mapping[str, Any]) -> bool:
    return data.get("from") == status and data.get("to") in _LEGAL.get(status, ())


def _check_folders(adapters: Path) -> Iterator[str]:
    for folder in adapters.iterdir():
        try:
            files = json.loads((folder / MANIFEST).read_text())["files"]
            sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
        except (OSError, ValueError) as error:
            yield f"{folder.name} is torn: {error}"
            continue
        if sums != {name: entry["sha256"] for name, entry in files.items()}:
            yield f"{folder.name} is torn: its files are not those of its manifest"


def _check_numbers(versions: Sequence[AdapterVersion]) -> Iterator[str]:
    numbers: dict[str, list[int]] = defaultdict(list)
    for version in versions:
        numbers[version.adapter_id].append(version.number)
    for adapter_id, given in numbers.items():
        if sorted(given) != list(range(1, len(given) + 1)):
            yield f"{adapter_id}: the numbers of its versions are {sorted(given)}"


def _is_waking(line: Line, next_began_at: float, freezes: Sequence[Freeze]) -> bool:
    """Whether the line's process was frozen when the next attempt began, and had only just woken."""
    return any(
        line.pid in freeze.pids
        and freeze.began_at <= next_began_at <= freeze.ended_at + OVERLAP_SECONDS
        and line.at <= freeze.ended_at + OVERLAP_SECONDS
        for freeze in freezes
    )
