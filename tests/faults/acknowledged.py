"""What was answered is there: POSTs to an API that is killed again and again, each sent until it is answered."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from shared.models import Document
from tests.faults.goals import Goal, Outcome, Trial
from tests.faults.http_load import LOST, Connections, Reply
from tests.faults.installation import Installation, installation, wait_until_live

_POSTS_PER_KILL = 200
NUM_POINTS = 6  # of `failing_api`, each of which comes at least once
_CLIENTS = 16
_SHARE_SENT_TWICE = 0.05  # of the answered ones: their client did not see the answer
_GIVE_UP_SECONDS = 60.0
_BOUNDARY = "between-the-parts"
_MULTIPART = f"multipart/form-data; boundary={_BOUNDARY}"


@dataclass(frozen=True)
class Post:
    """One POST, as often as it is sent, and where its answer names what it made."""

    key: str
    path: str
    body: bytes
    content_type: str
    ids_of: Callable[[dict[str, Any]], list[str]]
    content: bytes | None = None  # of an upload

    @property
    def headers(self) -> Mapping[str, str]:
        return {"idempotency-key": self.key, "content-type": self.content_type}


@dataclass
class Answers:
    """What the clients were answered, by key."""

    by_key: dict[str, list[bytes]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    num_lost: int = 0

    def add(self, post: Post, reply: Reply) -> None:
        self.by_key.setdefault(post.key, []).append(reply.body)


def run(trial: Trial) -> Outcome:
    """`n` different POSTs: jobs alone, jobs with a training that waits, raw documents, and files of lines."""
    num_kills = max(NUM_POINTS, trial.n // _POSTS_PER_KILL)
    kills = trial.folder / "kills.txt"
    faults = {
        "FAULT_SEED": str(trial.seed),
        "FAULT_KILLS": str(num_kills),
        "FAULT_MOST_POSTS": str(max(1, trial.n // num_kills)),
        "FAULT_LOG": str(kills),
    }
    with installation(trial) as made:
        document = asyncio.run(_first_document(made))
        posts = [_post(number, random.Random(f"{trial.seed} {number}"), document) for number in range(trial.n)]
        api = made.api("-m", "tests.faults.failing_api", **faults).start()
        answers = asyncio.run(_send_all(int(api.environment["FINETUNED_PORT"]), posts, trial.seed))
        by_point = Counter(kills.read_text().split()) if kills.exists() else Counter()
        violations = [*answers.wrong, *_violations(made, posts, answers, document)]
        figures = {
            "kills": by_point.total(),
            "sent_again": answers.num_lost,
            **{f"kills_{name}": number for name, number in sorted(by_point.items())},
        }
        if by_point.total() < num_kills:
            violations.append(f"only {by_point.total()} of {num_kills} kills took place")
    return Outcome(len(answers.by_key), violations, figures)


# What is sent


async def _first_document(made: Installation) -> str:
    """What the setups learn from; made by an API that nobody kills."""
    api = made.api().start()
    wait_until_live(api)
    connections = Connections(int(api.environment["FINETUNED_PORT"]))
    post = _document(random.Random("first"), "first", "")
    reply = await connections.send("POST", post.path, post.body, post.headers)
    connections.close()
    api.kill()
    return post.ids_of(json.loads(reply.body))[0]


def _post(number: int, chance: random.Random, document: str) -> Post:
    maker = chance.choices(list(_MAKERS), weights=_MAKERS.values())[0]
    return maker(chance, f"key-{number}", document)


def _setup(chance: random.Random, key: str, document: str) -> Post:
    body = {"train": False, "document_ids": [document], "adapter": f"a{chance.randrange(1000)}"}
    return Post(key, "/fine-tuning/setup", json.dumps(body).encode(), "application/json", _job_ids)


def _training(chance: random.Random, key: str, document: str) -> Post:
    body = {"document_ids": [document], "adapter": f"a{chance.randrange(1000)}"}
    return Post(key, "/fine-tuning/setup", json.dumps(body).encode(), "application/json", _job_ids)


def _document(chance: random.Random, key: str, document: str) -> Post:
    content = f"The handbook says {chance.random()}.\n".encode()
    body = _part('name="files"; filename="notes.txt"', content)
    return Post(key, "/documents", _form(body), _MULTIPART, lambda answer: [answer["data"][0]["id"]], content)


def _file(chance: random.Random, key: str, document: str) -> Post:
    said = [{"role": "user", "content": f"What is {chance.random()}?"}, {"role": "assistant", "content": "A number."}]
    content = json.dumps({"messages": said}).encode() + b"\n"
    body = _part('name="purpose"', b"fine-tune") + _part('name="file"; filename="lines.jsonl"', content)
    return Post(key, "/v1/files", _form(body), _MULTIPART, lambda answer: [answer["id"]], content)


_MAKERS = {_setup: 60, _training: 15, _document: 15, _file: 10}  # and their weights


def _job_ids(answer: dict[str, Any]) -> list[str]:
    return [str(answer[name]) for name in ("job_id", "training_job_id") if answer[name] is not None]


def _part(said: str, content: bytes) -> bytes:
    return f"--{_BOUNDARY}\r\ncontent-disposition: form-data; {said}\r\n\r\n".encode() + content + b"\r\n"


def _form(parts: bytes) -> bytes:
    return parts + f"--{_BOUNDARY}--\r\n".encode()


# How it is sent


async def _send_all(port: int, posts: list[Post], seed: int) -> Answers:
    """Each client takes the next POST and sends it until it is answered."""
    answers, waiting, chance = Answers(), iter(posts), random.Random(f"again {seed}")

    async def send_on() -> None:
        connections = Connections(port)
        for post in waiting:
            for _ in range(2 if chance.random() < _SHARE_SENT_TWICE else 1):
                await _send_until_answered(connections, post, answers)
        connections.close()

    await asyncio.gather(*(send_on() for _ in range(_CLIENTS)))
    return answers


async def _send_until_answered(connections: Connections, post: Post, answers: Answers) -> None:
    deadline = asyncio.get_running_loop().time() + _GIVE_UP_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        reply = await connections.send("POST", post.path, post.body, post.headers)
        if reply.status in (200, 201, 202):
            return answers.add(post, reply)
        if reply.status != LOST:
            answers.wrong.append(f"{post.path} was answered {reply.status}: {reply.body[:200]!r}")
            return
        answers.num_lost += 1
        await asyncio.sleep(0.05)
    answers.wrong.append(f"{post.key} was not answered in {_GIVE_UP_SECONDS:.0f} s")


# What is there


def _violations(made: Installation, posts: list[Post], answers: Answers, first: str) -> list[str]:
    """Each answer names what is there, the same each time; and there is nothing that no answer names."""
    named: dict[str, Post] = {}
    wrong = []
    for post in posts:
        bodies = [json.loads(body) for body in answers.by_key.get(post.key, [])]
        ids = [post.ids_of(body) for body in bodies]
        if any(one != ids[0] for one in ids):
            wrong.append(f"{post.key} was answered with different ids: {ids}")
        named.update(dict.fromkeys(ids[0] if ids else [], post))
    there = [*_created_jobs(made), *_documents(made, first)]
    wrong += [f"{one} was answered and is not there" for one in sorted(named.keys() - set(there))]
    wrong += [f"{one} is there and no answer names it" for one in sorted(set(there) - named.keys())]
    wrong += [f"{one} was made {times} times" for one, times in Counter(there).items() if times > 1]
    return wrong + [f"the bytes of {one} are not those that were sent" for one in _torn(made, named)]


def _created_jobs(made: Installation) -> list[str]:
    return [event.job_id for event in made.events() if event.message.startswith("Created ")]


def _documents(made: Installation, first: str) -> list[str]:
    with made.database.read() as session:
        return list(session.scalars(select(Document.id).where(Document.id != first)))


def _torn(made: Installation, named: Mapping[str, Post]) -> list[str]:
    """The uploads whose file differs from what the client had sent."""
    uploads = {one: post.content for one, post in named.items() if post.content is not None}
    paths = {one: made.storage.document(one) for one in uploads}
    return [
        one
        for one, content in uploads.items()
        if not paths[one].exists() or _sha256(paths[one].read_bytes()) != _sha256(content)
    ]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


GOALS = (
    Goal(
        name="acknowledged",
        promise="10,000 answered POSTs under API kills at named points: none is missing, and with an Idempotency-Key "
        "none is doubled.",
        run=run,
        n=5000,  # with either database
        quick_n=60,
    ),
)
