"""A served tiny model whose engine is watched: what a test wants to happen in the middle of an answer happens there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from shared.database import Database
from shared.ids import new_id
from shared.messages import Answer, TokenChunk, parse_reply
from shared.settings import Settings
from shared.storage import Storage
from tests.databases import migrate
from tests.inference.test_service import CLAIM_AFTER_SECONDS, REPLIES, Client
from worker.inference.engine import Engine, Output, Statistics
from worker.inference.measures import Measures
from worker.inference.models import LoadedModel, LoadedModels, load_base
from worker.inference.preparation import Preparation
from worker.inference.questions import QuestionStream, connect
from worker.inference.recording import Recorder
from worker.inference.registry import Registry
from worker.inference.sequence import AdapterFiles, Sequence
from worker.inference.service import InferenceService


@dataclass
class WatchedEngine:
    """An engine that notes which questions it was given and which had a part in each step. `after_step` is called
    in the loop, between two steps, with the steps so far."""

    engine: Engine
    submitted: list[str] = field(default_factory=list)
    steps: list[set[str]] = field(default_factory=list)
    after_step: Callable[[int], None] = lambda num_steps: None

    @property
    def has_work(self) -> bool:
        return self.engine.has_work

    @property
    def statistics(self) -> Statistics:
        return self.engine.statistics

    def submit(self, sequence: Sequence) -> None:
        self.submitted.append(sequence.question_id)
        self.engine.submit(sequence)

    def preload(self, adapter: AdapterFiles) -> None:
        self.engine.preload(adapter)

    def abort(self, sequence_id: str) -> None:
        self.engine.abort(sequence_id)

    def step(self) -> list[Output]:
        outputs = self.engine.step()
        self.steps.append({output.sequence.question_id for output in outputs})
        self.after_step(len(self.steps))
        return outputs

    def recover(self) -> list[Output]:
        return self.engine.recover()


class Serving:
    """One worker in a thread, with its client, database and files."""

    def __init__(self, settings: Settings, questions: QuestionStream, load: Callable[[str], LoadedModel]) -> None:
        self.settings = settings
        self.database = Database(settings.resolved_database_url)
        self.storage = Storage(settings.data_dir)
        self.client = Client(settings.resolved_redis_url, settings.base_model)
        self.engines: list[WatchedEngine] = []
        self.recorder = Recorder(self.database, stores_queries=False, retention_days=1.0, pause_seconds=0.01)
        self.measures = Measures(self.recorder.record)
        self._questions = questions
        self._models = LoadedModels(lambda name: self._watched(load(name)), settings.max_loaded_models)
        registry = Registry(self.database, self.storage, allows_fallback=True)
        self._service = InferenceService(
            questions,
            Preparation(registry, self._models),
            capacity=settings.max_batch_size,
            measures=self.measures,
            claim_after_seconds=CLAIM_AFTER_SECONDS,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._service.run, args=(self._stop,))

    @property
    def engine(self) -> WatchedEngine:
        """The engine of the one model that is loaded."""
        (engine,) = self.engines
        return engine

    def answers(self, question_ids: Collection[str]) -> dict[str, Answer]:
        """The answers to these questions, by id, whatever has been read before. A refusal fails the test."""
        found: dict[str, Answer] = {}
        last = "0"
        while len(found) < len(question_ids):
            for _, entries in self.client.redis.xread({REPLIES: last}, block=60_000, count=1000):
                last = entries[-1][0]
                for reply in (parse_reply(fields["reply"]) for _, fields in entries):
                    if reply.question_id in question_ids and not isinstance(reply, TokenChunk):
                        assert isinstance(reply, Answer), reply
                        found[reply.question_id] = reply
        return found

    def start(self) -> None:
        self.recorder.start()
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(60)
        self.recorder.stop()
        self._models.close()
        self._questions.close()
        self.client.redis.close()
        self.database.close()

    def _watched(self, model: LoadedModel) -> LoadedModel:
        self.engines.append(WatchedEngine(model.engine))
        return replace(model, engine=self.engines[-1])


@contextmanager
def serving(
    settings: Settings,
    questions: Callable[..., QuestionStream] = QuestionStream,
    load: Callable[[str, Settings], LoadedModel] = load_base,
) -> Iterator[Serving]:
    """A worker that runs, on a migrated database."""
    migrate(settings.resolved_database_url)
    stream = questions(connect(settings.resolved_redis_url), new_id("inference@"), CLAIM_AFTER_SECONDS)
    served = Serving(settings, stream, lambda name: load(name, settings))
    served.start()
    try:
        yield served
    finally:
        served.close()
