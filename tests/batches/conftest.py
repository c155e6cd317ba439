"""A supervisor of batch jobs over SQLite and a real Redis, and a worker that answers as many questions as it may."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from shared.database import Database
from shared.messages import Question
from shared.models import Document, Job
from shared.queue import Doorbell, celery_app
from shared.repositories.batches import BatchRepository
from shared.repositories.documents import DocumentRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage
from tests.batches.files import answer, read_output, write_input
from tests.databases import migrate
from worker.inference.questions import QuestionStream, connect
from worker.jobs.child import forkserver_for
from worker.jobs.supervisor import Supervisor

RUNNER = "tests.batches.runners:run"


@dataclass
class Bench:
    """A database with batch jobs, their files, and a supervisor."""

    database: Database
    settings: Settings
    storage: Storage
    supervisor: Supervisor

    def create(self, *lines: Any, **parameters: Any) -> str:
        """A batch over these lines."""
        return self._create(lines, {"model": self.settings.base_model, **parameters})

    def create_openai(self, *lines: Any, endpoint: str = "/v1/chat/completions", **options: Any) -> str:
        """A batch of the OpenAI dialect over these lines."""
        asked = {"endpoint": endpoint, "expires_at": int(time.time()) + 3600, **options}
        return self._create(lines, {"openai": asked}, purpose="batch")

    def _create(self, lines: Sequence[Any], parameters: dict[str, Any], **values: Any) -> str:
        with self.database.write() as session:
            document = Document(
                id=f"file-{len(lines)}", project_id="default", filename="in.jsonl", kind="jsonl", size_bytes=1,
                sha256="0" * 64, **values,
            )  # fmt: skip
            DocumentRepository(session).add(document)
            write_input(self.storage.document(document.id), *lines)
            return JobRepository(session).create("default", "batch", {"document_id": document.id, **parameters}).id

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return JobRepository(session).get("default", job_id)

    def move(self, move: str, job_id: str) -> None:
        with self.database.write() as session:
            getattr(JobRepository(session), move)("default", job_id)

    def output(self, job_id: str) -> list[dict[str, Any]]:
        path = self.storage.batch_output(job_id)
        return read_output(path) if path.exists() else []

    def ask_to_cancel(self, job_id: str) -> None:
        with self.database.write() as session:
            BatchRepository(session).ask_to_cancel("default", job_id)

    def made_file(self, job_id: str, name: str) -> list[dict[str, Any]]:
        """The lines of the file that the job's result names."""
        file_id = (self.job(job_id).result or {})[name]
        with self.database.read() as session:
            document = DocumentRepository(session).get("default", file_id)
        assert document.purpose == "batch_output"
        return read_output(self.storage.document(document.id))

    def work_in_background(self) -> threading.Thread:
        thread = threading.Thread(target=self.supervisor.work)
        thread.start()
        return thread


@contextmanager
def open_bench(settings: Settings) -> Iterator[Bench]:
    """A bench with a database of its own."""
    migrate(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    stopping = threading.Event()
    supervisor = Supervisor(
        kind="batch",
        owner="test",
        settings=settings,
        database=database,
        doorbell=Doorbell(celery_app(settings)),
        runner=RUNNER,
        processes=forkserver_for(RUNNER),
        is_stopping=stopping.is_set,
    )
    yield Bench(database, settings, Storage(settings.data_dir), supervisor)
    stopping.set()
    database.close()


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    with open_bench(settings) as bench:
        yield bench


class EchoWorker:
    """An inference worker without a model: it answers background questions with themselves, as many as it may."""

    def __init__(self, url: str) -> None:
        self.answered: list[str] = []
        self._may_answer = threading.Semaphore(0)
        self._is_stopping = threading.Event()
        self._stream = QuestionStream(connect(url), "echo")
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def allow(self, number: int) -> None:
        self._may_answer.release(number)

    def close(self) -> None:
        self._is_stopping.set()
        self._thread.join()
        self._stream.close()

    def _work(self) -> None:
        self._stream.join()
        while not self._is_stopping.is_set():
            if not self._may_answer.acquire(timeout=0.05):
                continue
            pulled = self._stream.pull(1, 0.05, is_background=True)
            if not pulled:
                self._may_answer.release()
            for delivery in pulled:
                question = Question.model_validate_json(delivery.payload)
                self.answered.append(question.id)
                reply = answer(question.id, question.text or "")
                self._stream.send([(question.reply_to, reply.model_dump_json())], [delivery.entry_id])


@pytest.fixture
def worker(settings: Settings) -> Iterator[EchoWorker]:
    worker = EchoWorker(settings.resolved_redis_url)
    yield worker
    worker.close()
