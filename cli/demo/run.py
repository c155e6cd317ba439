"""The demo's course: upload, ask, train, ask again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cli.client import Client, Json, check_accepted
from cli.demo.figures import Figures
from cli.demo.handbook import Handbook, HandbookQuestion
from cli.demo.scoring import score
from cli.demo.training import ADAPTER, BASE_MODEL, CONFIG, MAX_NEW_TOKENS
from cli.errors import DemoFailed
from cli.following import View, follow, succeeded

_CONCURRENCY = 12
_FIRST_ANSWER_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Outcome:
    """The figures, and the answers that they were counted from, in the questions' order."""

    figures: Figures
    version: str
    base_answers: list[str]
    tuned_answers: list[str]


@dataclass(frozen=True)
class Trained:
    """A finished training. `unfinished_at`: the latest `time.monotonic()` at which it was seen unfinished."""

    result: Json
    seconds: float
    unfinished_at: float


def run(client: Client, handbook: Handbook, view: View, say: Callable[[str], None], begun: float) -> Outcome:
    """Runs against a service that is ready; it began to start at `begun` (`time.monotonic()`)."""
    ready_seconds = time.monotonic() - begun
    say(f"1. Uploading {len(handbook.documents)} documents of the handbook …")
    document_ids = _upload(client, handbook)
    say(f"2. Asking the base model {len(handbook.questions)} questions …")
    base_answers = ask_all(client, handbook.questions, {"model": BASE_MODEL})
    say("3. Training …")
    trained = _train(client, document_ids, view)
    version = f"{trained.result['adapter']}@{trained.result['version']}"
    first_answer_seconds = _await_version(client, handbook.questions[0], trained)
    say(f"4. Asking {version} the same questions …")
    tuned_answers = ask_all(client, handbook.questions, {"adapter": ADAPTER, "fallback": False})
    figures = Figures(
        base_seen=score(handbook.questions, base_answers, seen=True),
        base_unseen=score(handbook.questions, base_answers, seen=False),
        tuned_seen=score(handbook.questions, tuned_answers, seen=True),
        tuned_unseen=score(handbook.questions, tuned_answers, seen=False),
        base_loss=trained.result["metrics"]["base_loss"],
        tuned_loss=trained.result["metrics"]["validation_loss"],
        ready_seconds=ready_seconds,
        training_seconds=trained.seconds,
        first_answer_seconds=first_answer_seconds,
        total_seconds=time.monotonic() - begun,
    )
    return Outcome(figures, version, base_answers, tuned_answers)


def ask_all(client: Client, questions: Sequence[HandbookQuestion], whom: Json) -> list[str]:
    """Each question's answer, many at a time so that the worker can batch them."""
    with ThreadPoolExecutor(_CONCURRENCY) as pool:
        return list(pool.map(lambda one: str(client.ask(_body(one, whom))["answer"]), questions))


def _upload(client: Client, handbook: Handbook) -> list[str]:
    uploaded = client.upload(handbook.documents)
    check_accepted(uploaded)
    return [str(one["id"]) for one in uploaded]


def _train(client: Client, document_ids: list[str], view: View) -> Trained:
    begun = time.monotonic()
    created = client.setup({"document_ids": document_ids, "adapter": ADAPTER, "model": BASE_MODEL, **CONFIG})
    succeeded(follow(client, created["job_id"], view).job)
    followed = follow(client, created["training_job_id"], view)
    return Trained(succeeded(followed.job), time.monotonic() - begun, followed.unfinished_at)


def _await_version(client: Client, question: HandbookQuestion, trained: Trained) -> float:
    """Seconds from the end of the training until the new version has answered a question."""
    deadline = time.monotonic() + _FIRST_ANSWER_PATIENCE_SECONDS
    while time.monotonic() < deadline:
        answer = client.ask(_body(question, {"adapter": ADAPTER}))
        if answer["version"] == trained.result["version"] and not answer["fallback"]:
            return time.monotonic() - trained.unfinished_at
    raise DemoFailed(f"Version {trained.result['version']} was published, but it does not answer; see the logs.")


def _body(question: HandbookQuestion, whom: Json) -> Json:
    return {"query": question.question, "max_new_tokens": MAX_NEW_TOKENS, "temperature": 0.0, **whom}
