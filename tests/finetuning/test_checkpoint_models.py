"""Checkpoints that answer: what a training publishes before its end, whatever becomes of it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from sqlalchemy import select
from sqlalchemy.orm import Session
from transformers import AutoModelForCausalLM

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.errors import AdapterBroken, DatabaseUnavailable, PublicationRefused, Superseded
from shared.messages import Question, Sampling, Turn
from shared.models import Document, ModelCheckpoint
from shared.repositories.documents import DocumentRepository
from shared.repositories.jobs import JobRepository
from shared.repositories.model_names import ModelNameRepository
from shared.training_config import FineTuningConfig
from tests.finetuning.conftest import make_examples
from tests.finetuning.installation import Installation, install
from tests.finetuning.serving import make_base, peft_answer, served_answer
from tests.tiny_models import make_tokenizer
from worker.adapter_files import WEIGHTS, check_files
from worker.finetuning.checkpoint_models import NUM_KEPT, checkpoint_id_of
from worker.finetuning.reports import EvaluationMetrics, Metrics, StepMetrics
from worker.finetuning.result_file import COLUMNS, ResultFile
from worker.inference.registry import Registry

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

OPENAI = {"openai": {"suffix": "leave"}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model whose answers vary."""
    folder = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    make_base("gpt2").save_pretrained(folder)
    make_tokenizer(128).save_pretrained(folder)
    return folder


def quick(base: Path) -> FineTuningConfig:
    return FineTuningConfig(
        model_name=str(base), learning_rate=5e-2, num_epochs=2, batch_size=2, gradient_accumulation_steps=2,
        lora_rank=4, lora_alpha=8,
    )  # fmt: skip


@pytest.fixture
def installation(tmp_path: Path, base: Path) -> Iterator[Installation]:
    made = install(tmp_path / "data", quick(base))
    yield made
    made.database.close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[tuple[Installation, ClaimedJob]]:
    """An installation and its only job, which has succeeded."""
    made = install(tmp_path_factory.mktemp("trained") / "data", quick(base))
    job = made.claim(made.create(**OPENAI))
    made.run(job)
    yield made, job
    made.database.close()


def checkpoints(installation: Installation) -> Sequence[ModelCheckpoint]:
    """All rows, the deleted ones too."""
    with installation.database.read() as session:
        return session.scalars(select(ModelCheckpoint).order_by(ModelCheckpoint.step)).all()


def folders(installation: Installation) -> set[str]:
    return {path.name for path in (installation.storage.root / "adapters").iterdir()}


def snapshots(installation: Installation, job: ClaimedJob) -> list[str]:
    """The checkpoints' names, as the events told them."""
    messages = [event.message for event in installation.events(job, "message")]
    return [one.rpartition(" ")[2] for one in messages if one.startswith("Checkpoint created at step ")]


def config(installation: Installation, **changes: Any) -> dict[str, Any]:
    return {"config": installation.config.model_dump(mode="json") | changes}


def test_each_epoch_leaves_a_model_that_answers_as_peft_does_with_its_folder(
    trained: tuple[Installation, ClaimedJob],
) -> None:
    installation, _ = trained
    registry = Registry(installation.database, installation.storage, allows_fallback=False)
    prompts = [one.input_ids[:6] for one in make_examples(4, seed=3)]
    answers = [[served_answer(make_base("gpt2"), None, prompt) for prompt in prompts]]
    for checkpoint in checkpoints(installation):
        responder = registry.responder_for(question(checkpoint.id))
        assert responder.version is not None
        assert (responder.version.name, responder.version.number) == ("handbook", None)
        folder = installation.storage.version(checkpoint.id)
        assert responder.version.files.folder == folder
        answers.append([served_answer(make_base("gpt2"), folder, prompt) for prompt in prompts])
        base = AutoModelForCausalLM.from_pretrained(installation.config.model_name)
        plain = PeftModel.from_pretrained(base, str(folder))
        assert answers[-1] == [peft_answer(plain, prompt) for prompt in prompts]
    untrained, first, last = answers
    assert first != untrained
    assert last != first
    newest = checkpoints(installation)[-1].id, installation.versions()[0].id
    weights = [(installation.storage.version(one) / WEIGHTS).read_bytes() for one in newest]
    assert weights[0] == weights[1], "the last epoch's are those of the version"


def question(checkpoint_id: str) -> Question:
    return Question(
        id="answer-1", project_id="team", reply_to="replies", turns=(Turn(role="user", content="Hi"),),
        sampling=Sampling(), model="demo", adapter="handbook", checkpoint=checkpoint_id, deadline=1e12, asked_at=0.0,
    )  # fmt: skip


def test_a_checkpoint_is_named_described_and_measured(trained: tuple[Installation, ClaimedJob]) -> None:
    installation, job = trained
    key = job.claim.job_id.removeprefix("ftjob-")
    names = [f"ft:tiny-gpt2:team:leave:{key}:ckpt-step-{step}" for step in (3, 6)]
    assert snapshots(installation, job) == names
    with installation.database.read() as session:
        found = [ModelNameRepository(session, ()).resolve("team", name).checkpoint for name in names]
    first, second = checkpoints(installation)
    assert found == [first.id, second.id]
    by_step = {event.data["step"]: event.data for event in installation.events(job, "metrics")}
    numbers = ("train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy")
    for row in (first, second):
        manifest = check_files(installation.storage.version(row.id))
        assert {name: row.metrics[name] for name in numbers} == {name: by_step[row.step][name] for name in numbers}
        assert (manifest.metrics, manifest.job_id, manifest.prompt_format) == (row.metrics, job.claim.job_id, "text")
        assert row.size_bytes == sum(entry.size_bytes for entry in manifest.files.values())
        assert (row.project_id, row.adapter, row.base_model) == ("team", "handbook", installation.config.model_name)


def test_only_jobs_that_want_it_publish_checkpoints_and_the_newest_are_kept(installation: Installation) -> None:
    epochs = config(installation, num_epochs=NUM_KEPT + 2)
    installation.run(installation.claim(installation.create(**epochs)))
    assert checkpoints(installation) == []
    job = installation.claim(installation.create(publish_checkpoints=True, **epochs))
    installation.run(job)
    rows = checkpoints(installation)
    newer, older = ((installation.storage.version(one.id) / WEIGHTS).read_bytes() for one in installation.versions())
    assert newer == older, "publishing checkpoints changes nothing of what is learned"
    assert [one.step for one in rows] == [3, 6, 9, 12, 15]
    assert [one.deleted_at is None for one in rows] == [False] * 2 + [True] * NUM_KEPT
    assert folders(installation) == {one.id for one in (*rows[2:], *installation.versions())}
    assert all(":handbook:" in name for name in snapshots(installation, job))
    assert "result_files" not in (installation.row(job).result or {})


class Killed(BaseException):
    """The process is gone."""


class TornDatabase(Database):
    """Raises `error` in the first transaction that enters a checkpoint: before the commit, or behind it."""

    def __init__(self, installation: Installation, error: BaseException, *, is_committed: bool) -> None:
        super().__init__(installation.settings.resolved_database_url)
        self._error: BaseException | None = error
        self._is_committed = is_committed

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
            error = (
                self._error if any(isinstance(one, ModelCheckpoint) for one in session.identity_map.values()) else None
            )
            if error is not None and not self._is_committed:
                self._error = None
                raise error
        if error is not None:
            self._error = None
            raise error


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_training_that_is_killed_around_a_checkpoints_commit_publishes_each_step_once(
    installation: Installation, is_committed: bool
) -> None:
    first = installation.claim(installation.create(**OPENAI))
    torn = TornDatabase(installation, Killed(), is_committed=is_committed)
    with pytest.raises(Killed):
        installation.run(ClaimedJob(torn, first.claim))
    torn.close()
    left = {one.name: one.stat().st_ino for one in (installation.storage.root / "adapters").iterdir()}
    assert set(left) == {checkpoint_id_of(first.claim.job_id, 3)}
    assert len(checkpoints(installation)) == is_committed
    with installation.database.write() as session:
        JobRepository(session).crash(first.claim, 3, "Killed.")
    second = installation.claim(installation.row(first))
    installation.run(second)
    assert [(one.step, one.deleted_at) for one in checkpoints(installation)] == [(3, None), (6, None)]
    assert len(snapshots(installation, second)) == 2
    assert folders(installation) == {one.id for one in (*checkpoints(installation), *installation.versions())}
    (name,) = left
    assert installation.storage.version(name).stat().st_ino == left[name], "what was left behind is used"


def test_what_an_attempt_left_behind_damaged_is_written_anew(installation: Installation) -> None:
    job = installation.claim(installation.create(**OPENAI))
    folder = installation.storage.version(checkpoint_id_of(job.claim.job_id, 3))
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(b"torn")
    with pytest.raises(AdapterBroken):
        check_files(folder)
    installation.run(job)
    check_files(folder)
    assert len(checkpoints(installation)) == 2


def test_a_stopped_training_goes_on_without_publishing_a_step_twice(installation: Installation) -> None:
    first = installation.claim(installation.create(**OPENAI))
    installation.run(first, lambda: bool(checkpoints(installation)))
    assert [one.step for one in checkpoints(installation)] == [3]
    with installation.database.write() as session:
        JobRepository(session).hand_back(first.claim)
    second = installation.claim(installation.row(first))
    installation.run(second)
    assert [one.step for one in checkpoints(installation)] == [3, 6]
    assert len(snapshots(installation, second)) == 2
    assert [row["step"] for row in result_rows(installation, second)] == ["1", "2", "3", "4", "5", "6"]


def test_a_database_that_is_away_costs_the_checkpoint_and_not_the_training(installation: Installation) -> None:
    job = installation.claim(installation.create(**OPENAI))
    torn = TornDatabase(installation, DatabaseUnavailable(), is_committed=False)
    installation.run(ClaimedJob(torn, job.claim))
    torn.close()
    assert installation.row(job).status == "succeeded"
    assert [one.step for one in checkpoints(installation)] == [6]


def test_a_job_that_is_cancelled_while_it_publishes_a_checkpoint_leaves_no_files(installation: Installation) -> None:
    job = installation.claim(installation.create(**OPENAI))

    class CancelledAtTheEpochsEnd(ClaimedJob):
        def log(self, message: str, **options: Any) -> None:
            super().log(message, **options)
            if message.startswith("Step 3/6"):
                with self.database.write() as session:
                    JobRepository(session).cancel("team", self.claim.job_id)

    with pytest.raises(Superseded):
        installation.run(CancelledAtTheEpochsEnd(job.database, job.claim))
    assert checkpoints(installation) == []
    assert folders(installation) == set()
    assert not list((installation.storage.root / "staging").iterdir())


def test_weights_that_have_not_changed_are_no_checkpoint(installation: Installation) -> None:
    job = installation.claim(installation.create(**OPENAI, **config(installation, learning_rate=1e-50, num_epochs=1)))
    with pytest.raises(PublicationRefused):
        installation.run(job)
    assert checkpoints(installation) == []
    (said,) = (one for one in installation.events(job, "message") if one.message.startswith("No checkpoint at step 3:"))
    assert said.level == "warn"


def result_rows(installation: Installation, job: ClaimedJob) -> list[dict[str, str]]:
    (document,) = result_files(installation, job)
    with installation.storage.document(document.id).open(newline="") as file:
        return list(csv.DictReader(file))


def result_files(installation: Installation, job: ClaimedJob) -> list[Document]:
    ids = (installation.row(job).result or {})["result_files"]
    with installation.database.read() as session:
        return [DocumentRepository(session).get("team", one) for one in ids]


def test_the_result_file_holds_the_metrics_of_every_step(trained: tuple[Installation, ClaimedJob]) -> None:
    installation, job = trained
    (document,) = result_files(installation, job)
    assert (document.purpose, document.filename, document.kind) == ("fine-tune-results", "step_metrics.csv", "csv")
    rows = result_rows(installation, job)
    assert tuple(rows[0]) == COLUMNS
    names = dict(zip(COLUMNS, ("step", "train_loss", "train_mean_token_accuracy", "valid_loss",
                               "valid_mean_token_accuracy"), strict=True))  # fmt: skip
    told = [event.data for event in installation.events(job, "metrics")]
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    for row, data in zip(rows, told, strict=True):
        for column, name in names.items():
            assert row[column] == "" if name not in data else float(row[column]) == pytest.approx(data[name], rel=1e-5)
    assert [row["step"] for row in rows if row["valid_loss"]] == ["3", "6"]
    assert not list((installation.storage.root / "staging").iterdir())


def test_a_row_that_a_crash_tore_is_left_out_and_a_step_that_is_taken_again_counts_once(tmp_path: Path) -> None:
    told: list[Metrics] = []
    path = tmp_path / "checkpoints" / "metrics.csv"
    for losses in ({1: 1.0, 2: 9.0}, {2: 2.0, 3: 3.0}):
        results = ResultFile(told.append, path)
        for step, loss in losses.items():
            results(StepMetrics(step, 3, 1, loss, 0.5, 1e-4, 0.1, 10.0, 1.0, is_last_of_epoch=step == 3))
        with path.open("a") as file:
            file.write("\n3,7.")
    for step in (0, 2):
        results(EvaluationMetrics(step, 4.0, 0.25, 10))
    results.write(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().splitlines() == [
        ",".join(COLUMNS), "1,1,0.5,,", "2,2,0.5,4,0.25", "3,3,0.5,,"
    ]  # fmt: skip
    assert len(told) == 6
