"""A registry with one published adapter on a tiny base model, and jobs that are run as a worker runs them."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from shared.database import Database
from shared.models import AdapterVersion, Job, Promotion
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage, sha256_of
from tests.databases import migrate
from tests.finetuning.serving import peft_answer
from tests.inference import tiny
from worker.adapter_files import MANIFEST, Manifest, list_files
from worker.jobs.child import Runner, work_on
from worker.registry.export_job import run_export
from worker.registry.import_job import run_import

PROMPT = [20, 11, 7, 33, 2, 90]


@dataclass(frozen=True)
class Installation:
    """`base` is the tiny model's folder; the adapter `handbook` has a version 1 on it."""

    database: Database
    settings: Settings
    storage: Storage
    base: Path
    architecture: str

    def run(self, job_id: str, runner: Runner, settings: Settings | None = None) -> Job:
        """Claims the job and works on it as a worker's child does; gives its row."""
        with self.database.write() as session:
            claim = JobRepository(session).claim_next(("import", "export"), "tests", 60.0)
        assert claim is not None
        assert claim.job_id == job_id
        work_on(claim, settings or self.settings, runner, lambda: False)
        return self.job(job_id)

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return JobRepository(session).get("default", job_id)

    def import_files(self, *files: Path, runner: Runner = run_import, **more: Any) -> Job:
        """Imports them as the API hands them over: by their numbers."""
        told = [{"filename": one.name, "size_bytes": one.stat().st_size, "sha256": sha256_of(one)} for one in files]
        with self.database.write() as session:
            parameters = {"adapter": "copy", "files": told, **more}
            job_id = JobRepository(session).create("default", "import", parameters).id
        source = self.storage.import_source(job_id)
        source.mkdir()
        for number, file in enumerate(files):
            shutil.copyfile(file, source / str(number))
        return self.run(job_id, runner)

    def export(self, runner: Runner = run_export, settings: Settings | None = None, **parameters: Any) -> Job:
        told = {"adapter": "handbook", "version": 1, **parameters}
        with self.database.write() as session:
            job_id = JobRepository(session).create("default", "export", told).id
        return self.run(job_id, runner, settings)

    def version(self, name: str, number: int | None = None) -> AdapterVersion:
        with self.database.read() as session:
            return AdapterRepository(session).resolve("default", name, number)

    def history(self, name: str) -> list[Promotion]:
        with self.database.read() as session:
            adapters = AdapterRepository(session)
            return list(adapters.history(adapters.get("default", name)))

    def folder(self, name: str) -> Path:
        return self.storage.version(self.version(name).id)

    def answer(self, adapter: Path | None) -> list[int]:
        """What plain PEFT answers with the adapter in a folder; the base model without one."""
        model = tiny.make_model(self.architecture).eval()
        return peft_answer(model if adapter is None else PeftModel.from_pretrained(model, str(adapter)), PROMPT)

    def is_tidy(self) -> bool:
        """Whether no job left anything half done behind, and each version's folder has its row."""
        folders = [*self.storage.root.joinpath("imports").iterdir(), *self.storage.root.joinpath("staging").iterdir()]
        return not folders and not [one for one in self.storage.root.joinpath("exports").iterdir() if one.is_dir()]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


Install = Callable[[str], Installation]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a base model and a data folder, made once for each architecture."""

    @cache
    def make(architecture: str) -> Path:
        folder = tmp_path_factory.mktemp(architecture)
        base = tiny.save_model(architecture, folder / "tiny")
        settings = settings_of(base, folder / "data")
        migrate(settings.resolved_database_url)
        database, storage = Database(settings.resolved_database_url), Storage(settings.data_dir)
        published = storage.version(tiny.publish(database, storage, base, "handbook", 1, architecture=architecture))
        database.close()
        change_config(published, base_model_name_or_path=str(base))
        manifest = Manifest.model_validate_json((published / MANIFEST).read_bytes())
        (published / MANIFEST).write_text(manifest.model_copy(update={"files": list_files(published)}).to_json())
        return folder

    return make


def settings_of(base: Path, data_dir: Path) -> Settings:
    return Settings(data_dir=data_dir, base_model=str(base), allowed_models=(str(base),), _env_file=None)


@pytest.fixture
def install(tmp_path: Path, template: Callable[[str], Path]) -> Iterator[Install]:
    opened: list[Database] = []

    def make(architecture: str) -> Installation:
        base = template(architecture) / "tiny"
        shutil.copytree(template(architecture) / "data", tmp_path / "data")
        settings = settings_of(base, tmp_path / "data")
        opened.append(Database(settings.resolved_database_url))
        return Installation(opened[-1], settings, Storage(settings.data_dir), base, architecture)

    yield make
    for database in opened:
        database.close()


@pytest.fixture
def installation(install: Install) -> Installation:
    return install("gpt2")


@pytest.fixture
def sent(installation: Installation, tmp_path: Path) -> Path:
    """A copy of PEFT's folder, as a stranger might send it, to be spoilt."""
    folder = tmp_path / "sent"
    shutil.copytree(installation.folder("handbook"), folder)
    return folder


def zipped(folder: Path, more: Mapping[str, bytes] | None = None) -> Path:
    """The folder's files in a zip, and some others."""
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.iterdir()):
            packed.write(path, f"adapter/{path.name}")
        for name, content in (more or {}).items():
            packed.writestr(name, content)
    return archive


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
