"""An installation with a tiny model, two versions, a dataset of conversations, files of questions, and who answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.evaluation_parameters import Column
from shared.evaluation_report import EXAMPLES, REPORT, EvaluationReport, ExampleRow
from shared.models import Dataset, Document, Job
from shared.repositories.datasets import DatasetRepository
from shared.repositories.documents import DocumentRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage, sha256_of
from tests.databases import migrate
from tests.inference.test_service import Worker
from tests.inference.tiny import publish
from tests.tiny_models import make_model, make_tokenizer
from worker.base_models.formats import Message, PromptFormat, encode_prompt
from worker.data.dataset import build, save
from worker.data.examples import DatasetOptions, SourceDocument
from worker.data.texts import ExtractedText, Section
from worker.evaluation.job import run_evaluation
from worker.inference.heartbeat import Heartbeat

CONTEXT = 1024
BASE = Column()
V1 = Column(adapter="handbook", version=1)
V2 = Column(adapter="handbook", version=2)
QUESTIONS = [("Where is the office?", "In Delft."), ("Who founded it?", "Two brothers."), ("When?", "In May.")]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 whose answers vary, with room for prompts with sources."""
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    model = make_model("gpt2", context=CONTEXT)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    make_tokenizer(CONTEXT).save_pretrained(folder)
    return folder


@dataclass
class Bench:
    """A database and files, and the jobs that work on them."""

    database: Database
    settings: Settings
    storage: Storage
    setup_job_id: str

    def create(self, *columns: Column, **parameters: Any) -> Job:
        """An evaluation of these columns on the held-out examples."""
        given = {
            "base_model": self.settings.base_model,
            "columns": [one.model_dump(mode="json") for one in columns],
            "setup_job_id": self.setup_job_id,
            "general": False,
            "max_new_tokens": 6,
        }
        with self.database.write() as session:
            return JobRepository(session).create("default", "evaluation", given | parameters)

    def claim(self, job: Job) -> ClaimedJob:
        with self.database.write() as session:
            claim = JobRepository(session).claim_next("evaluation", "tests", 60.0)
        assert claim is not None
        assert claim.job_id == job.id
        return ClaimedJob(self.database, claim)

    def hand_back(self, job: ClaimedJob) -> None:
        with self.database.write() as session:
            JobRepository(session).hand_back(job.claim)

    def run(self, job: ClaimedJob, should_stop: Callable[[], bool] = lambda: False, patience: float = 60.0) -> None:
        run_evaluation(job, self.settings, self.storage, should_stop, patience_seconds=patience)

    def evaluate(self, *columns: Column, patience: float = 60.0, **parameters: Any) -> Found:
        """The report of a new job."""
        job = self.claim(self.create(*columns, **parameters))
        self.run(job, patience=patience)
        return self.found(job)

    def found(self, job: ClaimedJob | str) -> Found:
        """Of a claimed job, or of one by its id."""
        row = self.row(job)
        folder = self.storage.evaluation(row.id)
        report = EvaluationReport.model_validate_json((folder / REPORT).read_text())
        lines = (folder / EXAMPLES).read_text().splitlines()
        assert row.status == "succeeded"
        assert EvaluationReport.model_validate(row.result) == report
        assert not self.storage.checkpoints(row.id).exists()
        assert not list((self.storage.root / "staging").iterdir())
        return Found(report, [ExampleRow.model_validate_json(line) for line in lines])

    def row(self, job: ClaimedJob | str) -> Job:
        with self.database.read() as session:
            return JobRepository(session).get("default", _id_of(job))

    def messages(self, job: ClaimedJob | str) -> list[str]:
        with self.database.read() as session:
            return [one.message for one in JobRepository(session).events(_id_of(job), limit=1000)]

    def upload(self, content: str, *, name: str = "questions.jsonl") -> str:
        """A file of questions."""
        kind = name.rpartition(".")[2]
        with self.database.write() as session:
            number = len(DocumentRepository(session).page("default", after=None, limit=100))
            path = self.storage.document(f"file-{number}")
            path.write_text(content)
            document = Document(
                id=path.name, project_id="default", filename=name, kind=kind, size_bytes=len(content),
                sha256=sha256_of(path), purpose="questions",
            )  # fmt: skip
            DocumentRepository(session).add(document)
        return path.name

    def upload_questions(self, pairs: Sequence[tuple[str, str]] = QUESTIONS) -> str:
        return self.upload("".join(json.dumps({"question": asked, "answer": said}) + "\n" for asked, said in pairs))

    @contextmanager
    def answering(self) -> Iterator[Worker]:
        """An inference worker that lives and answers."""
        worker = Worker(self.settings, self.database)
        heartbeat = Heartbeat(self.database, "inference@test", details=dict)
        heartbeat.start()
        worker.thread.start()
        try:
            yield worker
        finally:
            heartbeat.stop()
            worker.close()


def _id_of(job: ClaimedJob | str) -> str:
    return job if isinstance(job, str) else job.claim.job_id


@dataclass
class Found:
    """What a job left behind."""

    report: EvaluationReport
    rows: list[ExampleRow]

    def of(self, source: str) -> list[ExampleRow]:
        return [row for row in self.rows if row.source == source]


def conversations(number: int, name: str) -> ExtractedText:
    """Questions with answers; the last conversation has two of them."""
    said = [
        (
            Message(role="user", content=f"What is {name} {one}?"),
            Message(role="assistant", content=f"It is {one}{name}."),
        )
        for one in range(number)
    ]
    return ExtractedText(conversations=(*said[:-2], said[-2] + said[-1]))


@pytest.fixture(scope="session")
def dataset_folder(gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two documents; held out are a text and conversations."""
    folder = tmp_path_factory.mktemp("datasets") / "dataset-1"
    documents = [
        SourceDocument("file-a", "a" * 64, "a", conversations(6, "alpha")),
        SourceDocument("file-b", "b" * 64, "b", conversations(5, "beta"), is_held_out=True),
        SourceDocument("file-c", "c" * 64, "c", ExtractedText((Section("The office is in Delft."),)), is_held_out=True),
    ]
    options = DatasetOptions(max_length=128)
    save(build(documents, make_tokenizer(CONTEXT), PromptFormat.TEXT, options), folder, str(gpt2), options)
    return folder


@pytest.fixture(scope="session")
def installed(gpt2: Path, dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A data folder that each test gets a copy of, and the id of its setup job."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("installed") / "data", _env_file=None)
    storage = Storage(settings.data_dir)
    migrate(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    with database.write() as session:
        setup = JobRepository(session).create("default", "setup", {})
        row = Dataset(id="dataset-1", project_id="default", job_id=setup.id, fingerprint="f" * 64,
                      base_model=str(gpt2), statistics={})  # fmt: skip
        DatasetRepository(session).add(row, [])
    shutil.copytree(dataset_folder, storage.dataset("dataset-1"))
    for seed in (1, 2):
        publish(database, storage, gpt2, "handbook", seed)
    database.close()
    return settings.data_dir, setup.id


@pytest.fixture
def bench(tmp_path: Path, gpt2: Path, installed: tuple[Path, str], redis_url: str) -> Iterator[Bench]:
    folder, setup_job_id = installed
    shutil.copytree(folder, tmp_path / "data", ignore=shutil.ignore_patterns("writers"))
    settings = Settings(
        data_dir=tmp_path / "data", redis_url=redis_url, base_model=str(gpt2), max_batch_size=8, _env_file=None
    )
    database = Database(settings.resolved_database_url)
    yield Bench(database, settings, Storage(settings.data_dir), setup_job_id)
    database.close()


def generated(base: Path, adapter: Path | None, question: str, num_tokens: int) -> str:
    """What transformers' `generate` says, with PEFT's layers where there is an adapter."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    model = model if adapter is None else PeftModel.from_pretrained(model, adapter)
    prompt = encode_prompt(PromptFormat.TEXT, tokenizer, [Message(role="user", content=question)])
    ids = torch.tensor([prompt])
    tokens = model.eval().generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_tokens, do_sample=False, pad_token_id=0
    )
    return str(tokenizer.decode(tokens[0, len(prompt) :], skip_special_tokens=True)).strip()
