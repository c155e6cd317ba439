"""The sweep removes what nothing can own, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from shared.housekeeping import leftovers
from shared.housekeeping.leftovers import Patience
from shared.housekeeping.volume import Entry, Volume
from shared.models import Document, ModelCheckpoint, Upload, UploadPart
from shared.repositories.adapters import AdapterRepository
from shared.repositories.evaluations import EvaluationRepository
from shared.repositories.jobs import JobRepository
from shared.repositories.upkeep import UpkeepRepository
from shared.storage import Storage, publish_folder
from tests.api.conftest import publish
from tests.housekeeping.conftest import PATIENT, House, write

SUM = "a" * 64


def test_what_was_left_half_written_is_removed_and_said(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write(house.storage.stage() / "adapter_model.safetensors")
    write(house.storage.stage())
    write(house.storage.upload_part("part_1"))
    write(house.storage.import_source("import-gone") / "0")
    write(house.storage.root / "exports" / "export-gone.1" / "merged")
    write(house.storage.export("export-gone"))
    write(house.storage.root / "batches" / "batch_gone.jsonl.0f")
    write(house.storage.text(SUM))
    assert len(house.sweep()) == 8
    assert [path for path in house.storage.root.rglob("*") if path.is_file()] == []
    assert "removed uploads/part_1 (upload_part), 5 bytes" in caplog.text
    assert house.sweep() == set()


def test_what_is_young_may_still_get_its_row(house: House) -> None:
    for path in (house.storage.stage(), house.storage.upload_part("part_1"), house.storage.text(SUM)):
        write(path)
    write(house.storage.import_source("import-new") / "0")
    write(house.storage.root / "exports" / "export-new.1" / "merged")
    assert house.sweep(PATIENT) == set()


STAGES_AND_WAITS = """
import sys
from pathlib import Path
from shared.storage import Storage
storage = Storage(Path(sys.argv[1]))
staged = storage.stage()
staged.write_text("half of it")
print(staged.name, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_left_half_written_goes_at_once_and_a_living_ones_stays(house: House) -> None:
    command = [sys.executable, "-c", STAGES_AND_WAITS, str(house.storage.root)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living,
    ):
        assert killed.stdout is not None
        assert living.stdout is not None
        left, kept = killed.stdout.readline().strip(), living.stdout.readline().strip()
        write(house.storage.stage())  # this process's own
        assert house.sweep(PATIENT) == set()
        killed.kill()
        killed.wait()
        assert house.sweep(PATIENT) == {f"staging/{left}"}
        assert (house.storage.root / "staging" / kept).is_file()
        assert len(list((house.storage.root / "writers").iterdir())) == 2
    assert house.sweep(PATIENT) == {f"staging/{kept}"}


def test_a_child_that_lives_on_keeps_what_its_parent_staged(house: House) -> None:
    """It may be the one that writes."""
    forks = STAGES_AND_WAITS.replace("sys.stdin.read()", "import os\nif os.fork() == 0: sys.stdin.read()")
    command = [sys.executable, "-c", forks, str(house.storage.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        parent.stdout.readline()
        assert parent.wait() == 0
        assert house.sweep(PATIENT) == set()


def test_age_counts_from_when_a_file_came_to_its_place_as_in_a_restored_backup(house: House) -> None:
    restored = write(house.storage.upload_part("part_1"))
    os.utime(restored, (1.0, 1.0))  # the bytes are from 1970, and were put back just now
    assert house.sweep(PATIENT) == set()


def test_the_age_of_a_folder_is_that_of_the_newest_in_it(house: House) -> None:
    folder = house.storage.stage()
    write(folder / "deep" / "file")
    (entry,) = Volume(house.storage).entries("staging")
    assert 0.0 <= entry.age_seconds < 60.0
    assert entry.size_bytes == 5


def test_what_a_person_sent_or_a_training_made_is_never_removed_for_want_of_a_row(house: House) -> None:
    """The database may be the older one of the two, restored from a backup."""
    write(house.storage.version("version-unknown") / "adapter_model.safetensors")
    write(house.storage.document("file-unknown"))
    write(house.storage.dataset("dataset-unknown") / "train.arrow")
    write(house.storage.checkpoints("ftjob-unknown") / "checkpoint-00000001-0" / "state.safetensors")
    write(house.storage.batch_output("batch_unknown"))
    assert house.sweep() == set()


@pytest.mark.parametrize("status", ["queued", "running", "pausing", "paused"])
def test_what_belongs_to_a_job_that_has_not_ended_stays(house: House, status: str) -> None:
    job_id = house.job()
    _bring_to(house, job_id, status)
    kept = [
        write(house.storage.checkpoints(job_id) / "checkpoint-00000001-0" / "state.safetensors"),
        write(house.storage.import_source(job_id) / "0"),
        write(house.storage.root / "imports" / f"{job_id}.1" / "sent"),
        write(house.storage.root / "exports" / f"{job_id}.1" / "merged"),
        write(house.storage.root / "batches" / f"{job_id}.jsonl.0f"),
        write(house.storage.batch_output(job_id)),
    ]
    assert house.sweep() == set()
    assert all(path.exists() for path in kept)


def test_what_an_ended_job_left_is_removed_but_not_what_it_made(house: House) -> None:
    job_id = house.job("batch")
    house.cancel(job_id)
    write(house.storage.root / "batches" / f"{job_id}.jsonl.0f")
    write(house.storage.batch_output(job_id))
    assert house.sweep(PATIENT) == set()
    assert house.sweep() == {f"batches/{job_id}.jsonl.0f"}


def test_the_file_of_an_export_stays_if_it_succeeded_and_goes_if_not(house: House) -> None:
    cancelled = house.job("export")
    house.cancel(cancelled)
    succeeded = house.job("export")
    _succeed(house, "export")
    for job_id in (cancelled, succeeded):
        write(house.storage.export(job_id))
        write(house.storage.root / "exports" / f"{job_id}.1" / "merged")
    assert house.sweep() == {f"exports/{cancelled}", f"exports/{cancelled}.1", f"exports/{succeeded}.1"}


def test_an_evaluation_s_files_stay_until_it_is_deleted_and_a_gate_s_as_long_as_what_was_published(
    house: House,
) -> None:
    succeeded, deleted, failed = (house.job("evaluation") for _ in range(3))
    for _ in (succeeded, deleted):
        with house.database.write() as session:
            JobRepository(session).succeed(house.claim("evaluation"), {"baseline": "base"})
    house.cancel(failed)
    with house.database.write() as session:
        EvaluationRepository(session).delete("default", deleted)
    trainings = [house.job() for _ in range(3)]
    for training in trainings:
        with house.database.write() as session:
            JobRepository(session).succeed(house.claim(), {})
        publish(house.database, "handbook", id=f"version-{training}", job_id=training)
    for number in (1, 2):
        with house.database.write() as session:
            AdapterRepository(session).delete_version("default", "handbook", number)
    with house.database.write() as session:
        kept = {"project_id": "default", "step": 3, "adapter": "handbook", "base_model": "demo"}
        session.add(ModelCheckpoint(id="checkpoint-1", job_id=trainings[1], metrics={}, size_bytes=1, **kept))
    for job_id in (succeeded, deleted, failed, *trainings, "eval-unknown"):
        write(house.storage.evaluation(job_id) / "report.json")
    assert house.sweep(PATIENT) == set()
    assert house.sweep() == {f"evaluations/{job_id}" for job_id in (deleted, failed, trainings[0])}


def test_checkpoints_of_a_failed_training_are_kept_for_so_long_and_of_a_succeeded_one_not(house: House) -> None:
    cancelled = house.job()
    house.cancel(cancelled)
    succeeded = house.job()
    _succeed(house, "training")
    for job_id in (cancelled, succeeded):
        write(house.storage.checkpoints(job_id) / "checkpoint-00000001-0" / "state.safetensors")
    week = Patience(unknown_seconds=0.0, ended_seconds=0.0, checkpoint_seconds=7 * 86_400.0)
    assert house.sweep(week) == {f"checkpoints/{succeeded}"}
    with house.database.read() as session:
        finished_at = JobRepository(session).get("default", cancelled).finished_at
    house.move(cancelled, finished_at=(finished_at or 0.0) - 8 * 86_400.0)
    assert house.sweep(week) == {f"checkpoints/{cancelled}"}


def test_files_of_what_was_deleted_are_removed_if_a_kill_came_in_between(house: House) -> None:
    publish(house.database, "handbook", id="version-1")
    publish(house.database, "handbook", id="version-2")
    for version_id in ("version-1", "version-2"):
        write(house.storage.version(version_id) / "adapter_model.safetensors")
    with house.database.write() as session:
        AdapterRepository(session).delete_version("default", "handbook", 1)
    house.document("file-deleted")
    house.document("file-kept")
    house.delete_document("file-deleted")
    assert house.sweep(PATIENT) == set()
    assert house.sweep() == {"adapters/version-1", "documents/file-deleted"}


def test_a_document_that_came_back_while_the_sweep_ran_keeps_its_bytes(house: House) -> None:
    path = house.document("file-1")
    house.delete_document("file-1")
    (found,) = leftovers.leftovers(house.database, house.storage, Patience(0.0, 0.0, 0.0))
    with house.database.write() as session:
        session.get_one(Document, "file-1").deleted_at = None
    assert not leftovers.clear(house.database, house.storage, found)
    assert path.exists()


def test_a_part_with_a_row_and_the_text_of_a_document_stay(house: House) -> None:
    house.document("file-1", SUM)
    with house.database.write() as session:
        session.add(
            Upload(
                id="upload_1",
                project_id="default",
                filename="a.txt",
                purpose="batch",
                mime_type="text/plain",
                size_bytes=5,
                expires_at=2e9,
            )
        )
        session.flush()
        session.add(UploadPart(id="part_1", upload_id="upload_1", size_bytes=5))
    write(house.storage.upload_part("part_1"))
    write(house.storage.text(SUM))
    assert house.sweep() == set()


def test_what_is_staged_stays_while_a_job_is_worked_on_that_was_there_before_it(house: House) -> None:
    job_id = house.job()
    house.claim()
    staged = write(house.storage.stage() / "adapter_model.safetensors")
    with house.database.read() as session:
        known = UpkeepRepository(session).known()
    young = Entry(staged.parent, 5, 0.5)
    known = replace(known, oldest_attempt_seconds=known.oldest_attempt_seconds + 1.0)
    (rule,) = (one for one in leftovers.RULES if one.code == "staged")
    assert not rule.is_garbage(young, known, Patience(0.0, 0.0, 0.0))
    house.cancel(job_id)
    assert house.sweep() == {f"staging/{staged.parent.name}"}


def test_jobs_that_stage_and_publish_while_sweeps_run_lose_nothing(house: House) -> None:
    """A job that is worked on, and two sweepers with no patience at all."""
    house.job()
    house.claim()
    stopped, failures = threading.Event(), list[BaseException]()

    def keep_sweeping() -> None:
        while not stopped.is_set():
            try:
                house.sweep()
            except OSError as error:
                failures.append(error)

    sweepers = [threading.Thread(target=keep_sweeping) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for number in range(40):
            _publish(house.storage, f"version-{number}")
    finally:
        stopped.set()
        for sweeper in sweepers:
            sweeper.join(60)
    published = sorted((house.storage.root / "adapters").iterdir())
    assert failures == []
    assert len(published) == 40
    assert all(sorted(path.name for path in one.iterdir()) == ["a", "b", "c"] for one in published)


def test_what_cannot_be_removed_is_said_and_the_rest_goes_on(house: House) -> None:
    entry = Entry(house.storage.upload_part("part_1"), 0, 1.0)
    (rule,) = (one for one in leftovers.RULES if one.code == "upload_part")
    entry.path.mkdir()
    broken = leftovers.Rule(rule.code, rule.folder, rule.owner, rule.is_garbage, _refuse)
    assert not leftovers.clear(house.database, house.storage, leftovers.Leftover(broken, entry))
    assert entry.path.exists()


def _refuse(database: object, storage: object, entry: Entry) -> bool:
    raise PermissionError(13, "Permission denied")


def _publish(storage: Storage, version_id: str) -> None:
    staged: Path = storage.stage()
    staged.mkdir()
    for name in "abc":
        write(staged / name)
    publish_folder(staged, storage.version(version_id))


def _bring_to(house: House, job_id: str, status: str) -> None:
    if status in ("running", "pausing"):
        house.claim()
    if status in ("pausing", "paused"):
        with house.database.write() as session:
            JobRepository(session).pause("default", job_id)


def _succeed(house: House, kind: str) -> None:
    claim = house.claim(kind)
    with house.database.write() as session:
        JobRepository(session).succeed(claim, {})
