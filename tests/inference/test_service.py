from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from shared.database import Database
from shared.ids import new_id
from shared.messages import Answer, Question, Refusal, Reply, Sampling, TokenChunk, TokenLogprob, Turn, parse_reply
from shared.models import AdapterVersion
from shared.repositories.adapters import AdapterRepository
from shared.repositories.workers import WorkerRepository
from shared.settings import Settings
from shared.storage import Storage
from shared.streams import ABORTS, GROUP, QUESTIONS, replies_of
from tests.databases import migrate
from tests.inference.tiny import add_nan, flip_a_byte, publish
from tests.waiting import until
from worker.adapter_files import MANIFEST, Manifest, list_files
from worker.inference.engine import BatchEngine
from worker.inference.heartbeat import Heartbeat, Keeper
from worker.inference.models import LoadedModels, load_base
from worker.inference.preloading import Preloader
from worker.inference.preparation import Preparation
from worker.inference.questions import QuestionStream, connect
from worker.inference.registry import Registry
from worker.inference.service import InferenceService

REPLIES = replies_of("test")
CLAIM_AFTER_SECONDS = 0.5


class Worker:
    """An inference worker in a thread, as `python -m worker.inference` builds it."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.models = LoadedModels(lambda name: load_base(name, settings), settings.max_loaded_models)
        self.registry = Registry(database, Storage(settings.data_dir), allows_fallback=settings.fallback)
        self.questions = QuestionStream(connect(settings.resolved_redis_url), new_id("inference@"), CLAIM_AFTER_SECONDS)
        self.service = InferenceService(
            self.questions,
            Preparation(self.registry, self.models),
            capacity=settings.max_batch_size,
            claim_after_seconds=CLAIM_AFTER_SECONDS,
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.service.run, args=(self.stop,))

    def close(self, grace_seconds: float = 60.0) -> None:
        self.stop.set()
        self.thread.join(grace_seconds)
        self.models.close()
        self.questions.close()


class Client:
    """Asks as the API does, and reads its reply stream."""

    def __init__(self, url: str, model: str) -> None:
        self.redis = redis.Redis.from_url(url, decode_responses=True, protocol=2, socket_timeout=100)
        self.model = model
        self.last = "0"

    def ask(self, text: str = "Hi", *, adapter: str | None = None, num_tokens: int = 8, **fields: object) -> str:
        asked_at = time.time()
        question = Question(
            id=new_id("answer-"), project_id="default", reply_to=REPLIES, turns=(Turn(role="user", content=text),),
            sampling=Sampling(max_new_tokens=num_tokens), model=self.model, adapter=adapter,
            deadline=asked_at + 60, asked_at=asked_at,
        ).model_copy(update=fields)  # fmt: skip
        self.redis.xadd(QUESTIONS, {"question": question.model_dump_json()})
        return question.id

    def replies(self, question_id: str) -> Iterator[Reply]:
        """The replies to one question; those to others are passed over."""
        while True:
            for _, entries in self.redis.xread({REPLIES: self.last}, block=60_000, count=1):
                self.last, fields = entries[0]
                reply = parse_reply(fields["reply"])
                if reply.question_id == question_id:
                    yield reply

    def final(self, question_id: str) -> Answer | Refusal:
        return next(reply for reply in self.replies(question_id) if not isinstance(reply, TokenChunk))

    def answer(self, text: str = "Hi", **fields: object) -> Answer:
        reply = self.final(self.ask(text, **fields))  # type: ignore[arg-type]
        assert isinstance(reply, Answer), reply
        return reply


@pytest.fixture
def settings(tmp_path: Path, redis_url: str, gpt2: Path) -> Settings:
    settings = Settings(data_dir=tmp_path, redis_url=redis_url, base_model=str(gpt2))
    migrate(settings.resolved_database_url)
    return settings


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


@pytest.fixture
def new_worker(settings: Settings, database: Database) -> Iterator[Callable[[], Worker]]:
    workers: list[Worker] = []

    def start() -> Worker:
        workers.append(Worker(settings, database))
        workers[-1].thread.start()
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    client = Client(settings.resolved_redis_url, settings.base_model)
    yield client
    client.redis.close()


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.data_dir)


def nothing_is_left(client: Client) -> bool:
    return client.redis.xlen(QUESTIONS) == 0 and client.redis.xpending(QUESTIONS, GROUP)["pending"] == 0


def test_the_streamed_text_is_the_whole_text_and_nothing_stays_in_the_stream(
    new_worker: Callable[[], Worker], client: Client
) -> None:
    new_worker()
    streamed = ""
    for reply in client.replies(client.ask(num_tokens=40)):
        if not isinstance(reply, TokenChunk):
            break
        assert reply.offset == len(streamed)
        streamed += reply.text
    assert isinstance(reply, Answer)
    assert reply.text == streamed
    assert reply.usage.completion_tokens == 40
    assert 0 <= reply.queue_ms <= reply.first_token_ms
    assert reply.quality.mean_logprob < 0
    assert nothing_is_left(client)
    assert 0 < client.redis.ttl(REPLIES) <= 3600


def test_a_promoted_version_answers_the_next_question_without_a_restart(
    new_worker: Callable[[], Worker], client: Client, database: Database, storage: Storage, gpt2: Path
) -> None:
    new_worker()
    before = client.answer(adapter="default")
    assert (before.fallback, before.adapter, before.version) == (True, None, None)
    publish(database, storage, gpt2, "default", 1)
    first = client.answer(adapter="default")
    publish(database, storage, gpt2, "default", 2)
    second = client.answer(adapter="default")
    with database.write() as session:
        AdapterRepository(session).rollback("default", "default", "test")
    again = client.answer(adapter="default")
    base = client.answer()
    assert [(one.fallback, one.version) for one in (first, second, again)] == [(False, 1), (False, 2), (False, 1)]
    assert (again.text, base.text) == (first.text, before.text)
    assert len({before.text, first.text, second.text}) == 3
    assert not base.fallback


def test_a_new_version_of_an_adapter_that_was_asked_for_is_ready_before_the_next_question(
    new_worker: Callable[[], Worker], client: Client, database: Database, storage: Storage, gpt2: Path
) -> None:
    worker = new_worker()
    preloader = Preloader(worker.registry, worker.service.preload, interval_seconds=0.01)
    preloader.start()
    assert client.answer(adapter="default").fallback
    version_id = publish(database, storage, gpt2, "default", 1)
    (engine,) = worker.models.engines()
    assert isinstance(engine, BatchEngine)
    until(lambda: engine.loaded_adapters == [version_id])
    assert client.answer(adapter="default").version == 1
    preloader.stop()


def test_a_damaged_version_falls_back_and_says_so(
    new_worker: Callable[[], Worker], client: Client, database: Database, storage: Storage, gpt2: Path
) -> None:
    version_id = publish(database, storage, gpt2, "default", 1)
    flip_a_byte(storage.version(version_id) / "adapter_model.safetensors")
    new_worker()
    answer = client.answer(adapter="default")
    assert answer.fallback
    assert "damaged" in (answer.fallback_reason or "")
    refusal = client.final(client.ask(adapter="default", fallback=False))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "adapter_broken"


def test_a_version_that_only_fails_when_it_runs_falls_back_too_and_is_marked(
    new_worker: Callable[[], Worker], client: Client, database: Database, storage: Storage, gpt2: Path
) -> None:
    version_id = publish(database, storage, gpt2, "default", 1)
    folder = storage.version(version_id)
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    add_nan(folder)
    (folder / MANIFEST).write_text(manifest.model_copy(update={"files": list_files(folder)}).to_json())
    new_worker()
    answer = client.answer(adapter="default")
    assert answer.fallback
    assert answer.text == client.answer().text
    with database.read() as session:
        assert "finite" in (session.get_one(AdapterVersion, version_id).broken_reason or "")


def test_an_aborted_question_is_dropped_without_a_reply(new_worker: Callable[[], Worker], client: Client) -> None:
    worker = new_worker()
    aborted = client.ask(num_tokens=8192, turns=(Turn(role="user", content="x"),))
    next(client.replies(aborted))
    client.redis.publish(ABORTS, aborted)
    until(lambda: worker.service.num_questions == 0)
    until(lambda: nothing_is_left(client))
    client.answer()


def test_a_late_question_is_refused_and_not_computed(new_worker: Callable[[], Worker], client: Client) -> None:
    new_worker()
    refusal = client.final(client.ask(deadline=time.time() - 1))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "answer_timeout"


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_deadline_is_kept_by_a_worker_whose_clock_is_not_the_askers(
    new_worker: Callable[[], Worker], client: Client, hours: int
) -> None:
    new_worker()
    asked_at = time.time() + 3600 * hours
    answer = client.final(client.ask(asked_at=asked_at, deadline=asked_at + 60))
    assert isinstance(answer, Answer)
    assert 0.0 <= answer.queue_ms <= answer.first_token_ms < 60_000
    refusal = client.final(client.ask(asked_at=asked_at, deadline=asked_at - 1))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "answer_timeout"


def test_a_prompt_too_long_and_a_missing_model_are_refused_and_others_answered(
    new_worker: Callable[[], Worker], client: Client, tmp_path: Path
) -> None:
    new_worker()
    long = client.final(client.ask("x" * 500))
    missing = client.final(client.ask(model=str(tmp_path / "nothing")))
    assert isinstance(long, Refusal)
    assert isinstance(missing, Refusal)
    assert (long.code, missing.code) == ("prompt_too_long", "base_model_not_found")
    client.answer()


def test_several_answers_to_one_question_come_apart_and_the_first_is_what_one_alone_would_be(
    new_worker: Callable[[], Worker], client: Client
) -> None:
    new_worker()
    sampling = Sampling(max_new_tokens=20, temperature=1.0, seed=5, logprobs=2)
    alone = client.answer(sampling=sampling)
    streamed = ["", "", ""]
    logprobs: list[list[TokenLogprob]] = [[], [], []]
    for reply in client.replies(client.ask(sampling=sampling.model_copy(update={"n": 3}))):
        if not isinstance(reply, TokenChunk):
            break
        assert reply.offset == len(streamed[reply.choice])
        assert reply.logprobs_offset == len(logprobs[reply.choice])
        streamed[reply.choice] += reply.text
        logprobs[reply.choice] += reply.logprobs
    assert isinstance(reply, Answer)
    assert [choice.text for choice in reply.choices] == streamed
    assert [choice.logprobs for choice in reply.choices] == [tuple(one) for one in logprobs]
    assert reply.text == alone.text
    assert [one.bytes for one in reply.logprobs or ()] == [one.bytes for one in alone.logprobs or ()]
    assert len(set(streamed)) == 3
    assert reply.usage.completion_tokens == sum(choice.completion_tokens for choice in reply.choices)
    assert alone.choices == ()
    assert nothing_is_left(client)


def test_an_answer_ends_before_a_stop_string_and_streams_nothing_of_it(
    new_worker: Callable[[], Worker], client: Client
) -> None:
    new_worker()
    sampling = Sampling(max_new_tokens=40, temperature=1.0, seed=3)
    whole = client.answer(sampling=sampling).text
    stop = whole[8:11]
    asked = client.ask(sampling=sampling.model_copy(update={"stop": (stop, "never said")}))
    streamed = ""
    for reply in client.replies(asked):
        if not isinstance(reply, TokenChunk):
            break
        streamed += reply.text
    assert isinstance(reply, Answer)
    assert (reply.text, streamed) == (whole[: whole.index(stop)].rstrip(), reply.text)
    assert (reply.finish_reason, reply.logprobs) == ("stop", None)
    assert reply.usage.completion_tokens < 40


def test_an_aborted_question_for_several_answers_frees_them_all(
    new_worker: Callable[[], Worker], client: Client
) -> None:
    worker = new_worker()
    sampling = Sampling(max_new_tokens=8192, temperature=1.0, n=8)
    aborted = client.ask(sampling=sampling, turns=(Turn(role="user", content="x"),))
    next(client.replies(aborted))
    client.redis.publish(ABORTS, aborted)
    until(lambda: worker.service.num_questions == 0)
    (engine,) = worker.models.engines()
    until(lambda: not engine.has_work)
    client.answer()


def test_what_is_no_question_is_dropped(new_worker: Callable[[], Worker], client: Client) -> None:
    client.redis.xadd(QUESTIONS, {"question": "{"})
    client.redis.xadd(QUESTIONS, {"other": "field"})
    new_worker()
    client.answer()
    until(lambda: nothing_is_left(client))


def test_a_question_that_killed_several_workers_is_refused(new_worker: Callable[[], Worker], client: Client) -> None:
    poison = client.ask()
    client.redis.xgroup_create(QUESTIONS, GROUP, id="0")
    client.redis.xreadgroup(GROUP, "dead1", {QUESTIONS: ">"})
    for name in ("dead2", "dead3"):
        client.redis.xautoclaim(QUESTIONS, GROUP, name, 0)
    new_worker()
    refusal = client.final(poison)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "internal_error"


def test_questions_are_kept_by_who_works_on_them(settings: Settings, client: Client) -> None:
    owner, thief = (QuestionStream(connect(settings.resolved_redis_url), name, 0.2) for name in ("owner", "thief"))
    for stream in (owner, thief):
        stream.join()
    client.ask()
    (mine,) = owner.pull(1, None)
    idle = lambda: client.redis.xpending_range(QUESTIONS, GROUP, "-", "+", 1)[0]["time_since_delivered"]  # noqa: E731
    until(lambda: idle() > 200)
    owner.keep([mine.entry_id])
    assert thief.claim(1) == []
    owner.hand_back([mine.entry_id])
    (stolen,) = thief.claim(1)
    assert (stolen.entry_id, stolen.payload, stolen.num_deliveries) == (mine.entry_id, mine.payload, 2)
    for stream in (owner, thief):
        stream.close()


def test_the_keeper_keeps_what_is_in_work_and_nothing_else(settings: Settings, client: Client) -> None:
    owner, thief = (QuestionStream(connect(settings.resolved_redis_url), name, 0.3) for name in ("owner", "thief"))
    for stream in (owner, thief):
        stream.join()
    client.ask(), client.ask()
    kept, let_be = owner.pull(2, None)
    keeper = Keeper(owner, lambda: [kept.entry_id], interval_seconds=0.01)
    keeper.start()
    stolen: list[str] = []
    until(lambda: bool(stolen.extend(one.entry_id for one in thief.claim(2)) or stolen))
    assert stolen == [let_be.entry_id]
    keeper.stop()
    until(lambda: bool(stolen.extend(one.entry_id for one in thief.claim(2)) or kept.entry_id in stolen))
    for stream in (owner, thief):
        stream.close()


def test_a_worker_outlives_a_restart_of_redis(
    redis_binary: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, gpt2: Path
) -> None:
    socket = tmp_path_factory.mktemp("r") / "redis.sock"
    command = [redis_binary, "--port", "0", "--unixsocket", str(socket), "--save", ""]
    settings = Settings(data_dir=tmp_path, redis_url=f"unix://{socket}", base_model=str(gpt2))
    migrate(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until(socket.exists)
    worker, client = Worker(settings, database), Client(settings.resolved_redis_url, str(gpt2))
    worker.thread.start()
    try:
        client.answer()
        server.kill()
        server.wait()
        socket.unlink()
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(socket.exists)
        client.last = "0"
        client.answer()
    finally:
        worker.close()
        client.redis.close()
        database.close()
        server.terminate()
        server.wait()


def test_a_heartbeat_shows_the_worker_until_it_leaves(settings: Settings, database: Database) -> None:
    heartbeat = Heartbeat(database, "inference@here", details=lambda: {"loaded_models": []}, interval_seconds=0.01)

    def alive() -> list[str]:
        with database.read() as session:
            return [worker.id for worker in WorkerRepository(session).alive("inference")]

    heartbeat.start()
    until(lambda: alive() == ["inference@here"])
    heartbeat.stop()
    assert alive() == []


def process(settings: Settings) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "FINETUNED_DATA_DIR": str(settings.data_dir),
        "FINETUNED_BASE_MODEL": settings.base_model,
        "REDIS_URL": settings.resolved_redis_url,
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen([sys.executable, "-m", "worker.inference"], env=environment, stderr=subprocess.DEVNULL)


def test_the_questions_of_a_killed_worker_are_answered_by_another(
    settings: Settings, client: Client, new_worker: Callable[[], Worker]
) -> None:
    killed = process(settings)
    late = time.time() + 600
    ids = [client.ask("y" * (number % 9), num_tokens=80, deadline=late) for number in range(40)]  # more than fit
    next(client.replies(ids[0]))
    killed.send_signal(signal.SIGSTOP)  # so that it ends in the middle, whatever the scheduler does
    killed.kill()
    killed.wait()
    unanswered = client.redis.xpending(QUESTIONS, GROUP)["pending"]
    new_worker()
    for question_id in ids:
        client.last = "0"  # they may have ended in either order
        assert isinstance(client.final(question_id), Answer)
    assert unanswered > 0
    until(lambda: nothing_is_left(client))


def test_a_worker_told_to_stop_finishes_and_says_goodbye(
    settings: Settings, client: Client, database: Database
) -> None:
    worker = process(settings)
    asked = client.ask(num_tokens=60)
    next(client.replies(asked))
    worker.terminate()
    assert isinstance(client.final(asked), Answer)
    assert worker.wait(60) == 0
    with database.read() as session:
        assert WorkerRepository(session).alive("inference") == []
    assert nothing_is_left(client)
    assert client.redis.xinfo_consumers(QUESTIONS, GROUP) == []
