"""Nothing torn is ever visible: publication killed at each of its steps, damaged files, and full disks."""

from __future__ import annotations

from importlib import import_module

from tests.faults.goals import Goal, Outcome, Trial


def _trial(name: str, trial: Trial) -> Outcome:
    """The trials load torch, which other goals do without: they are imported when they are run."""
    outcome: Outcome = getattr(import_module("tests.faults.storage_trials"), name)(trial)
    return outcome


GOALS = (
    Goal(
        "publication",
        "A process that is killed at any step of publishing a checkpoint, a version, a dataset or a file leaves "
        "nothing torn to be seen, and the next attempt publishes it whole.",
        lambda trial: _trial("publication", trial),
        n=7,  # times each crash point, in each of three trials: a database is put back more slowly than a file
        quick_n=1,
        trials=(("sqlite", 1), ("postgres", 2), ("sqlite", 3)),
    ),
    Goal(
        "corruption",
        "Whatever happens to the bytes of a checkpoint, a version, a checkpoint model, a dataset or a sent file is "
        "noticed before anything of it is loaded: the checkpoint before is gone on from, the version is not served.",
        lambda trial: _trial("corruption", trial),
        n=500,  # with either database
        quick_n=60,
    ),
    Goal(
        "disk-full",
        "A disk that is full after any number of bytes costs no checkpoint that was there and leaves nothing half "
        "written behind; the job goes on or ends as disk_full, and succeeds when there is room.",
        lambda trial: _trial("disk_full", trial),
        n=25,  # with either database
        quick_n=5,
    ),
)
