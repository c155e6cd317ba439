"""`finetuned export` and `import` against the real service, with a worker played in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api.main import create_app
from cli.main import app
from shared.repositories.jobs import JobRepository
from tests.registry.conftest import Installation
from tests.serving import serving
from worker.jobs.child import work_on
from worker.registry.export_job import run_export
from worker.registry.import_job import run_import

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

RUNNERS = {"import": run_import, "export": run_export}


@pytest.fixture
def worker(installation: Installation) -> Iterator[None]:
    """Does imports and exports as soon as they come."""
    is_over = threading.Event()

    def work() -> None:
        while not is_over.wait(0.05):
            with installation.database.write() as session:
                claim = JobRepository(session).claim_next(tuple(RUNNERS), "played", 60.0)
            if claim is not None:
                work_on(claim, installation.settings, RUNNERS[claim.kind], lambda: False)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    is_over.set()
    thread.join()


@pytest.fixture
def finetuned(installation: Installation, worker: None, redis_url: str) -> Iterator[Callable[..., Result]]:
    settings = installation.settings.model_copy(update={"redis_url": redis_url})
    with serving(create_app(settings)) as url:
        yield lambda *words: CliRunner().invoke(app, list(map(str, words)), env={"FINETUNED_URL": url})


def test_what_is_exported_by_command_is_imported_by_command(
    installation: Installation, finetuned: Callable[..., Result], tmp_path: Path
) -> None:
    archive = tmp_path / "out.zip"
    exported = finetuned("export", "handbook", "--format", "peft", "-o", archive)
    assert (exported.exit_code, exported.output.splitlines()[-1]) == (0, f"handbook@1 is in {archive}.")
    imported = finetuned("import", archive, "--adapter", "copy")
    assert (imported.exit_code, imported.output.splitlines()[-1]) == (0, "copy@1 is imported.")
    again = finetuned("import", installation.folder("handbook"), "--adapter", "copy", "--promote")
    assert (again.exit_code, again.output.splitlines()[-1]) == (0, "copy@2 is imported.")
    assert installation.version("copy").number == 2
    refused = finetuned("import", tmp_path / "data" / "staging", "--adapter", "copy")
    assert (refused.exit_code, "holds no adapter" in refused.output) == (1, True)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "adapter_config.json").write_text("{}")
    (tmp_path / "bad" / "adapter_model.safetensors").write_text("x")
    failed = finetuned("import", tmp_path / "bad", "--adapter", "copy")
    assert (failed.exit_code, "names no base model" in failed.output) == (1, True)
