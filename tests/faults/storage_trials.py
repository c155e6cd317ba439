"""The trials of the goals about files: publication killed at each of its steps, damaged files, and full disks."""

from __future__ import annotations

import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product

from shared.database import Database
from shared.errors import DiskFull
from shared.repositories.jobs import Claim
from tests.faults.goals import Outcome, Trial
from tests.faults.storage_crashes import Crasher, Ending, Operation, Order, unsafe_orders
from tests.faults.storage_damage import damage, victims
from tests.faults.storage_disks import SmallDisk, small_disk
from tests.faults.storage_site import SCENARIOS, Scenario, Site, empty, site

_ID = re.compile(r"[0-9a-f]{24}|(?<=checkpoint-)[0-9]+")
_LONGEST_DELAY_SECONDS = 0.003  # about as long as one step of a publication takes
_DAMAGE_SHARES = {"checkpoint": 7, "version": 7, "checkpoint model": 2, "dataset": 3, "import": 1}
_FULL_SHARES = {"training": 6, "setup": 1, "import": 1, "export": 1, "upload": 1}
_LARGEST_FILE_BYTES = 90_000  # of those that are written
_MOST_LEFT_BYTES = 400_000  # a little more than what is written altogether
_TRIES_AGAIN = 8  # one in so many kills is followed by a next attempt


def publication(trial: Trial) -> Outcome:
    """Kills every scenario `n` times at each kind of operation, each time at the next one of that kind."""
    source, violations, points, operations = random.Random(trial.seed), [], Counter[str](), 0
    for scenario in SCENARIOS:
        with site(trial, scenario.name) as place, _attempts(place, scenario) as attempts:
            violations += _whole(place, scenario, attempts)
            kinds = _kinds(attempts.operations)
            operations += len(attempts.operations)
            for round_, kind in product(range(trial.n), kinds):
                points[f"{scenario.name} {kind}"] += 1
                violations += _killed(place, scenario, attempts, round_, kinds[kind], source)
    figures = {"crash_points": len(points), "kills_of_each": min(points.values()), "operations": operations}
    return Outcome(sum(points.values()), violations, figures)


class _Attempts:
    """The first attempt and the next one, each at the point where it begins to write, and what the first does."""

    def __init__(self, first: Crasher, second: Crasher, job_id: str | None) -> None:
        self.first = first
        self.second = second
        self.job_id = job_id
        self.operations: Sequence[Operation] = ()


@contextmanager
def _attempts(place: Site, scenario: Scenario, *, begun: bool = False) -> Iterator[_Attempts]:
    """`begun`: the second goes on from the first checkpoint, else from nothing."""
    job_id = scenario.create(place)
    crashers: list[Crasher] = []
    try:
        for _ in range(2):  # the second is made of what the first has left when it is killed at once
            crashers.append(_crasher(place, scenario, None if job_id is None else place.claim(job_id)))
            if len(crashers) == 1:
                place.save()
                if begun:
                    _begin(place, crashers[0])
        place.restore()
        yield _Attempts(*crashers, job_id)
    finally:
        for crasher in reversed(crashers):  # the second holds the first's pipe open
            crasher.close()


def _begin(place: Site, crasher: Crasher) -> None:
    """Leaves what an attempt leaves that is killed when its first checkpoint has its name."""
    operations = crasher.run(Order()).operations
    renamed = next(number for number, one in enumerate(operations) if one.kind == "os.rename")
    place.restore()
    crasher.run(Order(last=renamed + 2))
    place.save()


def _crasher(place: Site, scenario: Scenario, claim: Claim | None) -> Crasher:
    database = Database(place.settings.resolved_database_url)
    return Crasher(
        lambda: scenario.run(place, database, claim),
        place.storage.root,
        scenario.begins,
        # What an earlier fork was connected to is not what this one is.
        after_fork=lambda: database.engine.dispose(close=False),
    )


def _whole(place: Site, scenario: Scenario, attempts: _Attempts) -> list[str]:
    """Once without a kill: what it does, and whether a power cut could tear it."""
    ending = attempts.first.run(Order())
    attempts.operations = ending.operations
    unsafe = [f"{scenario.name}: {words}" for words in unsafe_orders(ending.operations)]
    return [*unsafe, *_unfinished(place, scenario, attempts, ending)]


def _killed(
    place: Site, scenario: Scenario, attempts: _Attempts, round_: int, choice: Sequence[int], source: random.Random
) -> list[str]:
    """A kill at one of the operations `choice`, or soon after; now and then followed by another attempt."""
    last = choice[round_ % len(choice)]
    delay = source.uniform(0, _LONGEST_DELAY_SECONDS) if round_ % 2 else 0.0
    place.restore()
    attempts.first.run(Order(last, delay))
    where = f"{scenario.name}, killed {delay * 1e3:.1f} ms after {attempts.operations[last]}"
    found = [f"{where}: {words}" for words in place.torn()]
    if source.randrange(_TRIES_AGAIN) == 0:
        found += [f"{where}, then tried again: {words}" for words in _try_again(place, scenario, attempts)]
    return found


def _kinds(operations: Sequence[Operation]) -> dict[str, list[int]]:
    """The numbers of the operations, by what is done where: ids and the names of a folder's files do not count."""
    kinds = dict[str, list[int]]()
    for number, one in enumerate(operations):
        place, aim = ("/".join(_ID.sub("*", path).split("/")[:3]) for path in (one.path, one.target))
        kinds.setdefault(f"{one.kind} {place} {aim}".strip(), []).append(number)
    return kinds


def _try_again(place: Site, scenario: Scenario, attempts: _Attempts) -> list[str]:
    if attempts.job_id is not None:
        if place.status(attempts.job_id) == "succeeded":
            return []
        place.claim(attempts.job_id)
    return _unfinished(place, scenario, attempts, attempts.second.run(Order()))


def _unfinished(place: Site, scenario: Scenario, attempts: _Attempts, ending: Ending) -> list[str]:
    """What is wrong after an attempt that was left alone."""
    if not ending.is_done:
        return [f"{scenario.name}: the attempt failed: {ending.words}"]
    if attempts.job_id is not None and place.status(attempts.job_id) != "succeeded":
        return [f"{scenario.name}: the job is {place.status(attempts.job_id)}"]
    return place.torn()


def corruption(trial: Trial) -> Outcome:
    """Damages what lies on the disk, a byte at a time or more, and lets its readers read it."""
    source, violations, ways = random.Random(trial.seed), [], Counter[str]()
    with site(trial) as place:
        all_victims = victims(place)
        for victim in all_victims:
            shutil.copytree(victim.folder, trial.folder / "pristine" / victim.name)
        # A reader that refused whatever it is given would notice all damage, too.
        violations += [f"a whole {one.name} is refused" for one in all_victims if one.is_refused_whole()]
        by_weight = [one for one in all_victims for _ in range(_DAMAGE_SHARES[one.name])]
        for number in range(trial.n):
            victim = by_weight[number % len(by_weight)]
            pristine = trial.folder / "pristine" / victim.name
            way = damage(victim, pristine, source)
            ways[way] += 1
            unnoticed = victim.unnoticed()
            if unnoticed:
                violations.append(f"damage {number} to a {victim.name} ({way}): {unnoticed}")
            empty(victim.folder)
            shutil.copytree(pristine, victim.folder, dirs_exist_ok=True)
    return Outcome(trial.n, violations, {"ways": len(ways), "undetected": len(violations)})


def disk_full(trial: Trial) -> Outcome:
    """Everything that publishes, on disks that are full after so many bytes."""
    source, violations, endings = random.Random(trial.seed), [], Counter[str]()
    num_each = {one.name: max(1, trial.n * _FULL_SHARES[one.name] // sum(_FULL_SHARES.values())) for one in SCENARIOS}
    num_each["training"] += trial.n - sum(num_each.values())
    for scenario in SCENARIOS:
        with (
            site(trial, scenario.name, num_epochs=4) as place,
            _full_disk(place) as disk,
            _attempts(place, scenario, begun=scenario.name == "training") as attempts,
        ):
            for number in range(num_each[scenario.name]):
                violations += _filled(place, scenario, attempts, disk, number, source, endings)
    figures = {f"ended_{code}": number for code, number in sorted(endings.items())}
    return Outcome(sum(num_each.values()), violations, figures)


def _filled(
    place: Site, scenario: Scenario, attempts: _Attempts, disk: SmallDisk | None, number: int, source: random.Random,
    endings: Counter[str],
) -> list[str]:  # fmt: skip
    place.restore()
    crasher = attempts.first
    if scenario.name == "training" and attempts.job_id is not None:
        place.claim(attempts.job_id)
        crasher = attempts.second
    if disk is not None and number % 2:
        with disk.full_after(source.randrange(_MOST_LEFT_BYTES)) as left:
            ending, where = crasher.run(Order()), f"{left} bytes free"
    else:
        most = source.randrange(_LARGEST_FILE_BYTES)
        ending, where = crasher.run(Order(most_bytes=most)), f"no file beyond {most} bytes"
    where = f"{scenario.name}, {where}"
    endings[ending.code or "succeeded"] += 1
    found = [f"{where}: left {left}" for left in place.staged()]
    found += [f"{where}: {words}" for words in place.torn()]
    if not ending.is_done:
        if ending.code != DiskFull.code:
            found.append(f"{where}: it ended with {ending.words}")
        if scenario.name == "training" and not place.whole_checkpoints():
            found.append(f"{where}: no checkpoint is left to go on from")
        found += [f"{where}, then freed: {words}" for words in _finished(place, scenario, attempts, crasher)]
    return found


def _finished(place: Site, scenario: Scenario, attempts: _Attempts, crasher: Crasher) -> list[str]:
    return _unfinished(place, scenario, attempts, crasher.run(Order()))


@contextmanager
def _full_disk(place: Site) -> Iterator[SmallDisk | None]:
    """A small file system under the data folder; None where mounting is refused, and files are limited instead."""
    with small_disk(place.storage.root) as disk:
        if disk is None:
            print("disk-full: mounting a tmpfs is refused here; only the size of files is limited", file=sys.stderr)
        else:
            place.save()  # what the mount hides is put back onto it
        yield disk
