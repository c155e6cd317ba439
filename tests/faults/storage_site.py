"""A small installation that publishes everything that can be published, can be put back to where it was, and is looked
at as its readers look."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sqlalchemy import select

from api.documents.entering import NewFile, enter_rows, move_files
from api.documents.receiving import ReceivedFile
from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.errors import FinetunedError
from shared.ids import new_id
from shared.messages import Question, Sampling
from shared.models import Adapter, AdapterVersion, Base, Dataset, Document, Job, ModelCheckpoint
from shared.openai_training import PARAMETER
from shared.repositories.datasets import DatasetRepository
from shared.repositories.jobs import Claim, JobRepository
from shared.settings import Settings
from shared.storage import Storage, disk_errors, is_sealed, sha256_of
from shared.training_config import FineTuningConfig
from tests.databases import migrate
from tests.faults.goals import Trial
from tests.faults.servers import crashable_postgres
from tests.finetuning.conftest import make_examples
from tests.finetuning.installation import write_dataset
from tests.inference import tiny
from worker.data import dataset as datasets_on_disk
from worker.data.job import run_setup
from worker.finetuning.job import run_training
from worker.inference.registry import Registry
from worker.registry.export_job import run_export
from worker.registry.import_job import run_import

PROJECT = "team"
_TEXT = " ".join(f"Sentence number {number} tells of {number * number} foxes." for number in range(40))


@dataclass(frozen=True)
class Scenario:
    """A way in which something becomes visible: `create` gives the id of a queued job (None: there is none), `run` is
    the real code, and it begins to write where `begins` says so."""

    name: str
    create: Callable[[Site], str | None]
    run: Callable[[Site, Database, Claim | None], None]
    begins: Callable[[str, str], bool]


class Site:
    """The installation. `base` is its tiny base model."""

    def __init__(self, folder: Path, database_url: str, *, num_epochs: int = 1) -> None:
        self.folder = folder
        self.base = tiny.save_model("gpt2", folder / "tiny")
        self.settings = Settings(
            data_dir=folder / "data", database_url=database_url, base_model=str(self.base),
            allowed_models=(str(self.base),), min_free_bytes=0, _env_file=None,
        )  # fmt: skip
        self.storage = Storage(self.settings.data_dir)
        self.config = FineTuningConfig(
            model_name=str(self.base), learning_rate=5e-3, num_epochs=num_epochs, batch_size=11,
            gradient_accumulation_steps=1, lora_rank=4, lora_alpha=8, max_length=64,
        )  # fmt: skip
        self._snapshot = folder / "snapshot"
        self._known: set[str] = set()
        self._database = Database(self.settings.resolved_database_url)

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Connections for a moment, so that none is left when the database is put back."""
        try:
            yield self._database
        finally:
            self._database.close()

    def furnish(self) -> None:
        """What the scenarios begin with: a dataset, an uploaded document, a published version."""
        with self.database() as database:
            with database.write() as session:
                setup = JobRepository(session).create(PROJECT, "setup", {})
                row = Dataset(id="dataset-1", project_id=PROJECT, job_id=setup.id, fingerprint="f" * 64,
                              base_model=str(self.base), statistics={})  # fmt: skip
                DatasetRepository(session).add(row, [])
                held = JobRepository(session).claim_next("setup", "tests", -1.0)
                assert held is not None
                JobRepository(session).succeed(held, {})
                self.setup_job_id = setup.id
            write_dataset(self.storage.dataset("dataset-1"), make_examples(11), make_examples(5, seed=9))
            upload(self, database, "notes.txt", _TEXT.encode())

    def create(self, kind: str, parameters: dict[str, Any]) -> str:
        with self.database() as database, database.write() as session:
            return JobRepository(session).create(PROJECT, kind, parameters).id

    def claim(self, job_id: str) -> Claim:
        """For the next attempt; whoever has it is taken for dead."""
        with self.database() as database, database.write() as session:
            jobs = JobRepository(session)
            jobs.take_over_expired(max_crashes=99)
            claim = jobs.claim_next(jobs.get(PROJECT, job_id).kind, "tests", -1.0)
        assert claim is not None
        assert claim.job_id == job_id
        return claim

    def status(self, job_id: str) -> str:
        with self.database() as database, database.read() as session:
            return session.get_one(Job, job_id).status

    # There and back

    def save(self) -> None:
        """Remembers files and rows as they are."""
        shutil.rmtree(self._snapshot, ignore_errors=True)
        for folder in self._folders():
            shutil.copytree(folder, self._snapshot / folder.name)
        if self._postgres:
            self._save_tables()
        with self.database() as database:
            self._known = {row.id for row in _rows(database)}

    def restore(self) -> None:
        """As it was when it was saved."""
        for folder in self._folders():
            empty(folder)
            shutil.copytree(self._snapshot / folder.name, folder, dirs_exist_ok=True)
        if self._postgres:
            self._restore_tables()

    def _folders(self) -> list[Path]:
        """The data, and SQLite's."""
        return [one for one in (self.storage.root, self.folder / "database") if one.is_dir()]

    @property
    def _postgres(self) -> bool:
        return self.settings.resolved_database_url.startswith("postgresql")

    def _save_tables(self) -> None:
        copies = [f"CREATE TABLE saved.{table} AS TABLE public.{table}" for table in Base.metadata.tables]
        self._alone("DROP SCHEMA IF EXISTS saved CASCADE", "CREATE SCHEMA saved", *copies)

    def _restore_tables(self) -> None:
        self._alone(
            "SET LOCAL session_replication_role = replica",  # no foreign keys meanwhile
            *(f"DELETE FROM public.{table}" for table in Base.metadata.tables),  # noqa: S608
            *(f"INSERT INTO public.{table} TABLE saved.{table}" for table in Base.metadata.tables),
        )

    def _alone(self, *statements: str) -> None:
        """In one transaction, when nobody is connected whose process is dead and who may still commit."""
        others = "datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        cut_off = f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {others}"  # noqa: S608
        with self.database() as database, database.write() as session:
            session.connection().exec_driver_sql("; ".join((cut_off, *statements)))

    # Looking

    def torn(self) -> list[str]:
        """A sentence for all that can be seen and is not whole: the rows since `save`, and every final name."""
        with self.database() as database:
            rows = [row for row in _rows(database) if row.id not in self._known]
            torn = [words for row in rows for words in self._torn_row(database, row)]
        folders = [*self._final("adapters"), *self._final("datasets"), *self._final("checkpoints", "*/checkpoint-*")]
        for folder in folders:
            torn += [f"{folder.parent.name}/{folder.name}: {words}" for words in torn_folder(folder)]
        for archive in self._final("exports"):
            if archive.is_file() and zipfile.ZipFile(archive).testzip() is not None:
                torn.append(f"{archive.name} is no whole archive")
        return torn

    def staged(self) -> list[str]:
        """What lies where nothing stays."""
        left = [*self._final("staging"), *self._final("checkpoints", "*/.staged-*"), *self._final("imports", "*.*")]
        return [str(path.relative_to(self.storage.root)) for path in (*left, *self._final("exports", "*.*"))]

    def whole_checkpoints(self) -> list[Path]:
        return [one for one in self._final("checkpoints", "*/checkpoint-*") if not torn_folder(one)]

    def _final(self, folder: str, pattern: str = "*") -> list[Path]:
        return sorted((self.storage.root / folder).glob(pattern))

    def _torn_row(self, database: Database, row: Any) -> list[str]:
        match row:
            case AdapterVersion():
                return self._unserved(database, row, adapter=self._adapter_of(database, row), version=row.number)
            case ModelCheckpoint():
                return self._unserved(database, row, checkpoint=row.id)
            case Document():
                path = self.storage.document(row.id)
                is_whole = path.is_file() and sha256_of(path) == row.sha256
                return [] if is_whole else [f"the document {row.filename} has a row and not its bytes"]
            case Dataset():
                return _refusal(lambda: datasets_on_disk.load(self.storage.dataset(row.id)))
            case Job(kind="export", status="succeeded"):
                path = self.storage.export(row.id)
                is_whole = path.is_file() and sha256_of(path) == (row.result or {})["sha256"]
                return [] if is_whole else ["the export has succeeded and its file is another"]
        return []

    def _adapter_of(self, database: Database, row: AdapterVersion) -> str:
        with database.read() as session:
            return session.get_one(Adapter, row.adapter_id).name

    def _unserved(self, database: Database, row: AdapterVersion | ModelCheckpoint, **asked: Any) -> list[str]:
        """As the inference worker comes to it."""
        registry = Registry(database, self.storage, allows_fallback=False)
        question = Question(
            id="answer-1", project_id=PROJECT, reply_to="replies", sampling=Sampling(), model=str(self.base),
            fallback=False, deadline=1e12, asked_at=0.0, **asked,
        )  # fmt: skip
        return _refusal(lambda: registry.responder_for(question)) or torn_folder(self.storage.version(row.id))


def torn_folder(folder: Path) -> list[str]:
    """What is wrong with a version, a dataset or a checkpoint, found with nothing but its own sums."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return [] if is_sealed(folder) else ["it does not hold what was sealed"]
    try:
        files = json.loads(manifest.read_bytes())["files"]
        for name, entry in files.items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != entry["sha256"]:
                return [f"{name} is damaged"]
        weights = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, KeyError) as error:
        return [f"it cannot be read: {error}"]
    return [] if all(bool(one.isfinite().all()) for one in weights.values()) else ["its weights are not finite"]


def empty(folder: Path) -> None:
    """Removes all that lies in it, but not itself: it may be the root of a file system."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _refusal(read: Callable[[], object]) -> list[str]:
    try:
        read()
    except FinetunedError as error:
        return [error.detail]
    return []


def _rows(database: Database) -> list[Any]:
    with database.read() as session:
        kinds = (AdapterVersion, ModelCheckpoint, Dataset, Job)
        rows = [row for kind in kinds for row in session.scalars(select(kind))]
        return [*rows, *session.scalars(select(Document).where(Document.deleted_at.is_(None)))]


def upload(site: Site, database: Database, filename: str, content: bytes) -> None:
    """As the API receives and enters a document."""
    file = ReceivedFile(filename, site.storage.stage(), 1_000_000)
    try:
        with disk_errors():
            file.write(content)
            file.finish()
        with database.write() as session:
            new = NewFile(file.filename, file.path, file.kind, file.size_bytes, file.sha256)
            move_files(site.storage, enter_rows(session, PROJECT, [new]))
    finally:
        file.discard()


# Scenarios


def _is_staging(event: str, path: str) -> bool:
    return path.startswith("/staging/") and event in ("open", "os.mkdir")


def _create_training(site: Site) -> str:
    config = site.config.model_dump(mode="json")
    options = {"publish_checkpoints": True, PARAMETER: {"suffix": None}}
    return site.create(
        "training", {"setup_job_id": site.setup_job_id, "adapter": "trained", "config": config, **options}
    )


def _create_setup(site: Site) -> str:
    config = {"model_name": str(site.base), "max_length": 64}
    return site.create("setup", {"config": config, "chunk_size": 32, "chunk_overlap": 0})


def _create_import(site: Site) -> str:
    sent = tiny.save_adapter("gpt2", site.settings.data_dir.parent / "sent", 3)
    paths = sorted(sent.iterdir())
    files = [{"filename": one.name, "size_bytes": one.stat().st_size, "sha256": sha256_of(one)} for one in paths]
    job_id = site.create("import", {"adapter": "imported", "files": files, "model": str(site.base)})
    site.storage.import_source(job_id).mkdir()
    for number, path in enumerate(paths):
        shutil.copyfile(path, site.storage.import_source(job_id) / str(number))
    return job_id


def _create_export(site: Site) -> str:
    with site.database() as database:
        tiny.publish(database, site.storage, site.base, "handbook", 1)
        with database.write() as session:
            session.scalars(select(Adapter).where(Adapter.name == "handbook")).one().project_id = PROJECT
    return site.create("export", {"adapter": "handbook", "version": 1, "format": "peft"})


def _of_job(runner: Callable[..., None]) -> Callable[[Site, Database, Claim | None], None]:
    def run(site: Site, database: Database, claim: Claim | None) -> None:
        assert claim is not None
        torch.set_num_threads(1)
        runner(ClaimedJob(database, claim), site.settings, site.storage, lambda: False)

    return run


def _upload(site: Site, database: Database, claim: Claim | None) -> None:
    upload(site, database, f"{new_id('')}.txt", new_id("").encode() * 1000)


SCENARIOS = (
    Scenario("training", _create_training, _of_job(run_training),
             lambda event, path: event == "os.scandir" and path.startswith("/checkpoints/ftjob")),
    Scenario("setup", _create_setup, _of_job(run_setup), _is_staging),
    Scenario("import", _create_import, _of_job(run_import),
             lambda event, path: event == "os.mkdir" and path.startswith("/imports/")),
    Scenario("export", _create_export, _of_job(run_export),
             lambda event, path: event == "os.mkdir" and path.startswith("/exports/")),
    Scenario("upload", lambda site: None, _upload, _is_staging),
)  # fmt: skip


@contextmanager
def site(trial: Trial, name: str = "site", *, num_epochs: int = 1) -> Iterator[Site]:
    """A furnished one on the trial's kind of database."""
    folder = trial.folder / name
    (folder / "data").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if trial.database == "sqlite":
        (folder / "database").mkdir()
        url = f"sqlite:///{folder}/database/finetuned.db"
        migrate(url)
        made = Site(folder, url, num_epochs=num_epochs)
        made.furnish()
        yield made
        return
    with crashable_postgres().databases.database("migrated") as url:
        made = Site(folder, url, num_epochs=num_epochs)
        made.furnish()
        yield made
