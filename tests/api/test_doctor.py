"""The doctor: every way in which an installation can be broken is found, and what can be repaired is repaired."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import text

from api.maintenance.doctor import examine
from api.maintenance.findings import Report
from api.maintenance.site import Site
from shared.database import Database
from shared.errors import CorruptDocument
from shared.evaluation_report import EXAMPLES, REPORT
from shared.models import AdapterVersion, Document, Job, ModelCheckpoint, Promotion, UploadPart
from shared.repositories.documents import DocumentRepository
from shared.repositories.evaluations import EvaluationRepository
from shared.settings import Settings
from shared.storage import Storage
from shared.streams import BACKGROUND_QUESTIONS, GROUP, QUESTIONS
from tests.databases import migrate
from tests.housekeeping.conftest import House, write
from tests.housekeeping.healthy import TEXT, furnish, write_version


@dataclass(frozen=True)
class Installation(House):
    """Furnished, with no patience for leftovers."""

    settings: Settings
    ids: dict[str, str]

    def examine(self, *, fix: bool = False, deep: bool = False) -> Report:
        return examine(Site(self.settings, self.database, self.storage, is_deep=deep), is_fixing=fix)

    def found(self, **options: bool) -> set[str]:
        return {one.code for one in self.examine(**options).findings}

    def row(self, kind: type[Any], key: object) -> Any:
        with self.database.read() as session:
            return session.get_one(kind, key)

    def execute(self, statement: str, **values: object) -> None:
        with self.database.write() as session:
            session.execute(text(statement), values)

    def delete_evaluation(self) -> None:
        with self.database.write() as session:
            EvaluationRepository(session).delete("default", self.ids["evaluation"])

    def redis(self) -> Any:
        return Redis.from_url(self.settings.resolved_redis_url, protocol=2, decode_responses=True)


@pytest.fixture
def installation(database: Database, database_url: str, redis_url: str, tmp_path: Path) -> Installation:
    settings = Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        redis_url=redis_url,
        leftover_hours=0.0,
        checkpoint_retention_days=0.0,
        _env_file=None,
    )
    storage = Storage(settings.data_dir)
    return Installation(database, storage, settings, furnish(House(database, storage), redis_url))


def test_a_healthy_installation_has_no_finding(installation: Installation) -> None:
    assert installation.examine(deep=True) == Report(healthy=True, deep=True, findings=[])


Damage = Callable[[Installation], object]


def _flip(path: Path) -> None:
    """One bit, and the size stays."""
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def _weights(broken: Installation, version_id: str) -> Path:
    return broken.storage.version(version_id) / "adapter_model.safetensors"


def _old_question(broken: Installation, stream: str, **question: object) -> None:
    with broken.redis() as redis:
        redis.xadd(stream, {"question": json.dumps(question)})


def _ring_often(broken: Installation) -> None:
    with broken.redis() as redis:
        redis.rpush("training", *["ring"] * 1001)


def _version_row(number: int, change: str) -> Damage:
    statement = f"UPDATE adapter_versions SET {change} WHERE number = {number}"  # noqa: S608 - our own words
    return lambda broken: broken.execute(statement)


# By the code that it is found under: what was done to the installation.
REPAIRABLE: dict[str, tuple[Damage, ...]] = {
    "document_missing": (lambda broken: broken.storage.document("file-1").unlink(),),
    "document_damaged": (
        lambda broken: write(broken.storage.document("file-1"), "byte"),
        lambda broken: _flip(broken.storage.document("file-1")),
    ),
    "dataset_broken": (
        lambda broken: shutil.rmtree(broken.storage.dataset("dataset-1")),
        lambda broken: (broken.storage.dataset("dataset-1") / "dataset.json").unlink(),
        lambda broken: _flip(broken.storage.dataset("dataset-1") / "train" / "data.arrow"),
    ),
    "version_broken": (
        lambda broken: shutil.rmtree(broken.storage.version("version-1")),
        lambda broken: (broken.storage.version("version-1") / "manifest.json").unlink(),
        lambda broken: _weights(broken, "version-1").unlink(),
        lambda broken: _flip(_weights(broken, "version-1")),
        lambda broken: write(broken.storage.version("version-1") / "extra.safetensors"),
    ),
    "version_whole": (_version_row(1, "broken_reason = 'the volume was away'"),),
    "checkpoint_broken": (lambda broken: shutil.rmtree(broken.storage.version("version-c")),),
    "alias_broken": (
        lambda broken: broken.execute("UPDATE adapters SET live_number = 9"),
        _version_row(2, "deleted_at = 1.0"),
    ),
    "upload_part_broken": (
        lambda broken: broken.storage.upload_part("part_1").unlink(),
        lambda broken: write(broken.storage.upload_part("part_1"), "byte"),
    ),
    "export_damaged": (
        lambda broken: write(broken.storage.export(broken.ids["export"]), "byte"),
        lambda broken: _flip(broken.storage.export(broken.ids["export"])),
    ),
    "file_unknown": (
        lambda broken: write(broken.storage.document("file-lost")),
        lambda broken: write(broken.storage.dataset("dataset-lost") / "dataset.json"),
        lambda broken: write(broken.storage.checkpoints("ftjob-lost") / "checkpoint-00000001-0" / "state"),
        lambda broken: write(broken.storage.batch_output("batch_lost")),
        lambda broken: write(broken.storage.evaluation("eval-lost") / "report.json"),
    ),
    "leftover": (
        lambda broken: write(broken.storage.upload_part("part_lost")),
        lambda broken: write(broken.storage.import_source("import-lost") / "0"),
        lambda broken: write(broken.storage.text("f" * 64)),
        lambda broken: write(broken.storage.checkpoints(broken.ids["training"]) / "checkpoint-00000001-0" / "state"),
        lambda broken: write(broken.storage.root / "exports" / f"{broken.ids['export']}.1" / "merged"),
        lambda broken: broken.delete_document("file-1") or broken.storage.text("0").exists(),
        lambda broken: broken.delete_evaluation(),
    ),
    "lease_expired": (lambda broken: broken.move(broken.ids["running"], lease_expires_at=1.0),),
    "job_stranded": (lambda broken: _strand(broken),),
    "rings_pile_up": (_ring_often,),
    "questions_stale": (
        lambda broken: _old_question(broken, QUESTIONS, id="q", asked_at=3600.0, deadline=0.0),
        lambda broken: _old_question(
            broken, BACKGROUND_QUESTIONS, id="batch_lost.7", asked_at=0.0, deadline=9e9, is_background=True
        ),
    ),
}
# A person has to decide.
NOT_REPAIRABLE: dict[str, tuple[Damage, ...]] = {
    "version_unknown": (
        lambda broken: write_version(broken.storage.version("version-restored")),
        lambda broken: write(broken.storage.version("version-torn") / "adapter_model.safetensors"),
    ),
    "live_version_broken": (lambda broken: shutil.rmtree(broken.storage.version("version-2")),),
    "batch_output_missing": (lambda broken: broken.storage.batch_output(broken.ids["batch"]).unlink(),),
    "evaluation_broken": (
        lambda broken: shutil.rmtree(broken.storage.evaluation(broken.ids["evaluation"])),
        lambda broken: _flip(broken.storage.evaluation(broken.ids["evaluation"]) / REPORT),
        lambda broken: (broken.storage.evaluation(broken.ids["evaluation"]) / EXAMPLES).unlink(),
        lambda broken: _flip(broken.storage.evaluation(broken.ids["evaluation"]) / EXAMPLES),
    ),
    "checkpoints_missing": (lambda broken: shutil.rmtree(broken.storage.checkpoints(broken.ids["paused"])),),
    "no_worker": (
        lambda broken: (
            broken.move(broken.job("evaluation"), queued_at=1.0),
            broken.execute("DELETE FROM workers WHERE kind = 'training'"),
        ),
        lambda broken: (
            broken.move(broken.job("import"), queued_at=1.0),
            broken.execute("DELETE FROM workers WHERE kind = 'setup'"),
        ),
    ),
}


def _strand(broken: Installation) -> None:
    waiting = broken.job()
    with broken.database.write() as session:
        first = Job(id="setup-failed", project_id="default", kind="setup", status="failed", parameters={})
        session.add(first)
        session.flush()
        session.get_one(Job, waiting).waits_for = first.id


def _cases(corpus: dict[str, tuple[Damage, ...]]) -> list[Any]:
    return [pytest.param(code, one, id=f"{code}-{n}") for code, all in corpus.items() for n, one in enumerate(all)]


@pytest.mark.parametrize(("code", "damage"), _cases(REPAIRABLE))
def test_what_can_be_repaired_is_found_and_is_whole_afterwards(
    installation: Installation, code: str, damage: Damage
) -> None:
    damage(installation)
    found = installation.examine(deep=True)
    assert code in {one.code for one in found.findings}
    assert not found.healthy
    assert all(one.fix and not one.repaired and one.outcome is None for one in found.findings)
    fixed = installation.examine(deep=True, fix=True)
    assert fixed.healthy, fixed
    assert all(one.repaired and one.outcome for one in fixed.findings)
    assert installation.examine(deep=True) == Report(healthy=True, deep=True, findings=[])


@pytest.mark.parametrize(("code", "damage"), _cases(NOT_REPAIRABLE))
def test_what_a_person_has_to_decide_is_said_and_left(installation: Installation, code: str, damage: Damage) -> None:
    damage(installation)
    installation.examine(fix=True)
    left = installation.examine(fix=True)
    assert [(one.code, one.fix, one.repaired) for one in left.findings] == [(code, None, False)]
    assert not left.healthy


def test_the_doctor_destroys_neither_weights_nor_documents(installation: Installation) -> None:
    """Whatever is broken at once, every byte that somebody sent or trained is still there after the repair."""
    storage = installation.storage
    kept = {
        write(storage.document("file-lost"), "a document"): "lost/documents/file-lost",
        write(storage.checkpoints("ftjob-lost") / "checkpoint-00000001-0" / "state", "weights"): (
            "lost/checkpoints/ftjob-lost/checkpoint-00000001-0/state"
        ),
        write(storage.version("version-lost") / "adapter_model.safetensors", "weights"): (
            "adapters/version-lost/adapter_model.safetensors"
        ),
        write(storage.document("file-1"), "another text"): "lost/documents/file-1",
    }
    contents = {where: path.read_text() for path, where in kept.items()}
    _flip(_weights(installation, "version-1"))
    flipped = _weights(installation, "version-1").read_bytes()
    installation.examine(fix=True, deep=True)
    assert {where: (storage.root / where).read_text() for where in contents} == contents
    assert _weights(installation, "version-1").read_bytes() == flipped


def test_without_fix_nothing_changes(installation: Installation) -> None:
    for damage in (one for damages in REPAIRABLE.values() for one in damages[:1]):
        damage(installation)
    before = sorted(path for path in installation.storage.root.rglob("*"))
    first = installation.examine(deep=True)
    assert installation.examine(deep=True) == first
    assert sorted(path for path in installation.storage.root.rglob("*")) == before


def test_a_changed_byte_is_found_only_by_reading_all_of_them(installation: Installation) -> None:
    _flip(_weights(installation, "version-1"))
    assert installation.found() == set()
    assert installation.found(deep=True) == {"version_broken"}


def test_a_document_without_its_file_is_marked_and_another_upload_of_it_makes_it_whole(
    installation: Installation,
) -> None:
    installation.storage.document("file-1").unlink()
    installation.examine(fix=True)
    document: Document = installation.row(Document, "file-1")
    assert (document.status, document.error_code) == ("failed", CorruptDocument.code)
    with installation.database.write() as session:
        documents = DocumentRepository(session)
        documents.restore(documents.get("default", "file-1"), "notes.txt")
    write(installation.storage.document("file-1"), TEXT)
    assert installation.found(deep=True) == set()


def test_a_broken_live_version_is_marked_and_its_alias_stays_where_it_was(installation: Installation) -> None:
    shutil.rmtree(installation.storage.version("version-2"))
    (marked, said) = installation.examine(fix=True).findings
    assert (marked.code, marked.repaired) == ("version_broken", True)
    assert (said.code, said.subject) == ("live_version_broken", "handbook@2")
    assert "Version 1 answers in its place; `finetuned promote handbook 1`" in said.detail
    version: AdapterVersion = installation.row(AdapterVersion, "version-2")
    assert version.broken_reason == "The doctor found: its folder is missing."
    with installation.database.read() as session:
        assert session.scalar(text("SELECT live_number FROM adapters")) == 2


def test_an_alias_that_names_nothing_goes_back_to_the_version_before_and_the_history_says_so(
    installation: Installation,
) -> None:
    installation.execute("UPDATE adapter_versions SET deleted_at = 1.0 WHERE number = 2")
    installation.examine(fix=True)
    with installation.database.read() as session:
        assert session.scalar(text("SELECT live_number FROM adapters")) == 1
        last = session.query(Promotion).order_by(Promotion.id.desc()).first()
    assert last is not None
    assert (last.from_number, last.to_number, last.action, last.actor) == (2, 1, "rollback", "doctor")


def test_a_folder_of_weights_that_a_job_may_still_enter_is_no_finding(installation: Installation) -> None:
    write_version(installation.storage.version("version-next"), installation.ids["running"])
    assert installation.found() == set()


def test_a_lost_worker_s_job_is_given_to_another(installation: Installation) -> None:
    installation.move(installation.ids["running"], lease_expires_at=1.0)
    assert installation.found(fix=True) == {"lease_expired"}
    job: Job = installation.row(Job, installation.ids["running"])
    assert (job.status, job.num_crashes) == ("queued", 1)


def test_the_rows_of_what_is_gone_are_hidden_or_forgotten(installation: Installation) -> None:
    shutil.rmtree(installation.storage.version("version-c"))
    installation.storage.upload_part("part_1").unlink()
    installation.examine(fix=True)
    assert installation.row(ModelCheckpoint, "version-c").deleted_at is not None
    with installation.database.read() as session:
        assert session.get(UploadPart, "part_1") is None


def test_a_dead_worker_is_forgotten_unless_it_owes_answers(installation: Installation) -> None:
    with installation.redis() as redis:
        redis.xadd(QUESTIONS, {"question": json.dumps({"id": "q", "deadline": time.time() + 3600})})
        redis.xreadgroup(GROUP, "gone", {QUESTIONS: ">"})
        redis.xgroup_createconsumer(QUESTIONS, GROUP, "idle")
        (forgotten,) = installation.examine(fix=True).findings  # what `gone` owes, the living worker takes over
        assert (forgotten.code, forgotten.subject) == ("consumer_dead", f"{QUESTIONS} idle")
        installation.execute("DELETE FROM workers WHERE kind = 'inference'")
        (owing,) = installation.examine(fix=True).findings
        assert (owing.code, owing.subject, owing.fix) == ("consumer_dead", f"{QUESTIONS} gone", None)
        assert redis.xpending(QUESTIONS, GROUP)["pending"] == 1


def test_redis_that_is_away_is_said_and_all_else_is_looked_at(installation: Installation) -> None:
    away = installation.settings.model_copy(update={"redis_url": "unix:///nowhere/redis.sock"})
    installation.storage.document("file-1").unlink()
    found = examine(Site(away, installation.database, installation.storage))
    assert {one.code for one in found.findings} == {"redis_unreachable", "document_missing"}


def test_a_full_disk_is_said(installation: Installation) -> None:
    short = installation.settings.model_copy(update={"min_free_bytes": 10**18})
    found = examine(Site(short, installation.database, installation.storage))
    assert {one.code for one in found.findings} == {"disk_low"}


def test_a_database_of_another_revision_is_said_and_nothing_else_is_touched(installation: Installation) -> None:
    installation.storage.document("file-1").unlink()
    installation.execute("UPDATE alembic_version SET version_num = '0001'")
    assert installation.found(fix=True) == {"database_revision"}
    assert installation.row(Document, "file-1").status == "uploaded"


def test_a_database_that_is_away_is_said(tmp_path: Path, redis_url: str) -> None:
    settings = Settings(
        data_dir=tmp_path, redis_url=redis_url, database_url="postgresql://nobody@127.0.0.1:1/none", _env_file=None
    )
    report = examine(Site(settings, Database(settings.resolved_database_url), Storage(tmp_path)))
    assert [one.code for one in report.findings] == ["not_examined"]


def test_a_damaged_sqlite_file_is_said(tmp_path: Path, redis_url: str) -> None:
    settings = Settings(data_dir=tmp_path, redis_url=redis_url, _env_file=None)
    migrate(settings.resolved_database_url)
    path = tmp_path / "finetuned.db"
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 9] = b"\xff" * (4096 * 6)
    path.write_bytes(data)
    database = Database(settings.resolved_database_url)
    report = examine(Site(settings, database, Storage(tmp_path)), is_fixing=True)
    database.close()
    assert {one.code for one in report.findings} <= {"database_damaged", "not_examined"}
    assert not report.healthy


def test_the_same_is_said_on_the_machine_itself(installation: Installation) -> None:
    """For when the API is down."""
    environment = {
        "FINETUNED_DATA_DIR": str(installation.settings.data_dir),
        "DATABASE_URL": str(installation.settings.database_url),
        "REDIS_URL": str(installation.settings.redis_url),
        "FINETUNED_LEFTOVER_HOURS": "0",
        "PATH": "",
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "api.maintenance", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    installation.storage.document("file-1").unlink()
    found = run("--json")
    assert found.returncode == 1, found.stderr
    assert [one["code"] for one in json.loads(found.stdout)["findings"]] == ["document_missing"]
    assert run("--fix").returncode == 0
    whole = run("--deep")
    assert (whole.returncode, whole.stdout) == (0, "Everything matches.\n")
