"""Hostile and broken documents, through the real API and setup workers: refused or failed with a code, in bounds."""

from __future__ import annotations

import base64
import json
import os
import pickle
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psutil

from shared.models import Document
from tests.faults.canary import Canary
from tests.faults.goals import Goal, Outcome, Trial
from tests.faults.hostile_corpus import TEXT, HostileFile, corpus
from tests.faults.installation import Installation, installation, url_of, wait_until_live
from tests.waiting import until

LONGEST_SECONDS = 10.0
SLACK_SECONDS = 2.0  # for killing the reader and for two transactions on a busy machine
MOST_MEMORY_BYTES = 768 * 1024 * 1024
MOST_GROWTH_BYTES = 50 * 1024 * 1024
SECRET = "a-secret-of-the-service"
JOBS = 4


def try_hostile_files(trial: Trial) -> Outcome:
    """`n` files of the corpus (all of it, if `n` is that much), and the broken uploads. With half of them each, SQLite
    and Postgres together get all."""
    with Canary() as canary, installation(trial, OPENAI_API_KEY=SECRET, FINETUNED_LEASE_SECONDS="60") as made:
        files = _drawn(corpus(canary.url, trial.seed), trial)
        api = made.api()
        api.start()
        for _ in range(2):
            made.worker("setup").start()
        wait_until_live(api)
        check = _Check(made, url_of(api), Readers())
        check.upload(HostileFile("the first good file", "good-first.txt", lambda: TEXT + b"first", may_be_read=True))
        before = psutil.Process(api.pid).memory_info().rss
        for file in files:
            check.upload(file)
        for label, send in broken_uploads(url_of(api)).items():
            check.send_broken(label, send)
        growth = psutil.Process(api.pid).memory_info().rss - before
        made.wait_for_workers("setup", 2)
        check.push_messages()
        check.read_all(trial)
        check.violations += [f"somebody asked the canary: {asked!r}" for asked in canary.asked]
        if growth > MOST_GROWTH_BYTES:
            check.violations.append(f"the API grew by {growth} bytes")
        if left := list((made.data_dir / "staging").iterdir()):
            check.violations.append(f"{len(left)} staged files were left behind")
        return Outcome(
            check.num_tried, check.violations, {**check.figures(), "api_growth_mb": round(growth / 2**20, 1)}
        )


class Readers(threading.Thread):
    """Looks, from outside, at the processes that read documents: for their limits and for what they took."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.seen: set[int] = set()
        self.wrong: list[str] = []
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(0.05):
            for process in psutil.process_iter(["cmdline", "ppid"]):
                if "worker.data.extractors" in (process.info["cmdline"] or ()):
                    with suppress(OSError, psutil.NoSuchProcess, IndexError, KeyError):  # it has just ended
                        self._look_at(process.pid)

    def close(self) -> None:
        self._is_over.set()
        self.join()

    def _look_at(self, pid: int) -> None:
        folder = Path(f"/proc/{pid}")
        if SECRET.encode() in (folder / "environ").read_bytes():
            self.wrong.append("a reader saw a secret of the service")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        self.seen.add(pid)
        if self._is_limited(folder):  # from then on; before, it is a Python that starts
            self.peak_bytes = max(self.peak_bytes, int(status["VmPeak"].split()[0]) * 1024)

    def _is_limited(self, folder: Path) -> bool:
        told = (folder / "limits").read_text()
        return f"{MOST_MEMORY_BYTES}" in told.split("Max address space", 1)[1].splitlines()[0]


class _Check:
    """Sends the files, has them read, and collects what is wrong."""

    def __init__(self, made: Installation, url: str, readers: Readers) -> None:
        self.violations: list[str] = []
        self.num_tried = 0
        self._made = made
        self._client = httpx.Client(base_url=url, timeout=60)
        self._readers = readers
        self._sent: dict[str, HostileFile] = {}
        self._num_refused = 0
        self._slowest = 0.0

    def upload(self, file: HostileFile) -> None:
        """A clear 4xx, or a document."""
        self.num_tried += 1
        answer = self._client.post("/documents", files={"files": (file.filename, file.make())})
        if answer.status_code == 201:
            self._sent[answer.json()["data"][0]["id"]] = file
        else:
            self._refused(file.label, answer)
        self._live(file.label)

    def send_broken(self, label: str, send: Callable[[], int | None]) -> None:
        """None: there was nobody left to answer."""
        self.num_tried += 1
        status = send()
        if status is not None and not 400 <= status < 500:
            self.violations.append(f"{label}: answered with {status}")
        self._live(label)

    def push_messages(self) -> None:
        """Messages that are no JSON go into the queue itself, as by somebody who has got at Redis: pickles and YAML
        that make a file when they are read. The jobs that follow show that the workers go on."""
        command = f"touch {self._made.folder}/canary"
        bodies = {
            "application/x-python-serialize": pickle.dumps(_Evil(command)),
            "application/x-yaml": f"!!python/object/apply:os.system ['{command}']".encode(),
        }
        with self._made.redis.client() as client:
            for kind, body in bodies.items():
                self.num_tried += 1
                client.lpush("setup", _message(kind, body))

    def read_all(self, trial: Trial) -> None:
        """Has the workers read all that was accepted, in a few jobs, each with a good document at its end."""
        ids = list(self._sent)
        random.Random(trial.seed).shuffle(ids)
        self._readers.start()
        jobs = [self._create(ids[number::JOBS], number) for number in range(min(JOBS, len(ids)))]
        bound = 120 + len(ids) * LONGEST_SECONDS
        until(lambda: all(self._made.job(job).status in ("succeeded", "failed") for job in jobs), bound)
        self._readers.close()
        self.violations += sorted(set(self._readers.wrong))
        if self._readers.peak_bytes > MOST_MEMORY_BYTES:
            self.violations.append(f"a reader took {self._readers.peak_bytes} bytes")
        if (self._made.folder / "canary").exists():
            self.violations.append("a message from the queue was run")
        for job in jobs:
            self._judge(job)
        with self._made.database.read() as session:
            for one, file in self._sent.items():
                document = session.get_one(Document, one)
                self._judge_document(file, document.status, document.error_code, document.error_detail or "")

    def figures(self) -> dict[str, float | int]:
        return {
            "refused_at_once": self._num_refused,
            "read_by_workers": len(self._sent),
            "slowest_seconds": round(self._slowest, 1),
            "readers_seen": len(self._readers.seen),
            "most_memory_mb": round(self._readers.peak_bytes / 2**20),
        }

    def _refused(self, label: str, answer: httpx.Response) -> None:
        self._num_refused += 1
        if not 400 <= answer.status_code < 500:
            self.violations.append(f"{label}: answered with {answer.status_code}")
        elif not (answer.json().get("error") and answer.json().get("detail")):
            self.violations.append(f"{label}: refused without a code and a sentence")

    def _live(self, label: str) -> None:
        if self._client.get("/health/live").status_code != 200:
            self.violations.append(f"after {label}: the service is not healthy")

    def _create(self, ids: Sequence[str], number: int) -> str:
        content = b"".join(b"Rule %d of handbook %d. %b\n\n" % (rule, number, TEXT) for rule in range(30))
        good = self._client.post("/documents", files={"files": (f"good-{number}.txt", content)})
        wanted = [*ids, good.json()["data"][0]["id"]]
        body = {"document_ids": wanted, "train": False, "model": "demo", "chunk_size": 64}
        answer = self._client.post("/fine-tuning/setup", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def _judge(self, job_id: str) -> None:
        """The job has succeeded, for one of its documents was good; each took its time by the events."""
        job = self._made.job(job_id)
        if job.status != "succeeded" or job.attempt != 1:
            said = f"{job.status} at attempt {job.attempt}: {job.error_code}: {job.error_detail}"
            self.violations.append(f"job {job_id} is {said}")
        events = self._made.events(job_id)
        for begun, ended in pairwise(events):
            if begun.message.startswith("Validating"):
                seconds = ended.created_at - begun.created_at
                self._slowest = max(self._slowest, seconds)
                if seconds > LONGEST_SECONDS + SLACK_SECONDS:
                    self.violations.append(f"{begun.message}: took {seconds:.1f} s")

    def _judge_document(self, file: HostileFile, status: str, code: str | None, detail: str) -> None:
        if status == "extracted" and not file.may_be_read:
            self.violations.append(f"{file.label}: was read")
        elif status == "failed" and not (code and detail):
            self.violations.append(f"{file.label}: failed without a code")
        elif status not in ("extracted", "failed"):
            self.violations.append(f"{file.label}: is left as {status}")
        if file.words is not None and file.words not in detail:
            self.violations.append(f"{file.label}: '{detail}' does not say '{file.words}'")


class _Evil:
    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self._command,)


def _message(kind: str, body: bytes) -> str:
    """As Celery's Redis transport keeps one in a queue."""
    told = {"exchange": "", "routing_key": "setup"}
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-type": kind,
            "content-encoding": "binary",
            "headers": {"lang": "py", "task": "finetuned.run_job", "id": uuid4().hex},
            "properties": {
                "body_encoding": "base64",
                "delivery_info": told,
                "delivery_tag": uuid4().hex,
                "priority": 0,
            },
        }
    )


def _drawn(files: list[HostileFile], trial: Trial) -> list[HostileFile]:
    mixed = random.Random("all trials' order").sample(files, len(files))
    return mixed[: trial.n] if trial.database == "sqlite" else mixed[-trial.n :]


# Uploads that are broken on their way


def broken_uploads(url: str) -> dict[str, Callable[[], int | None]]:
    """By label; each sends one and gives the status of the answer, None if it hung up before."""
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nsome words\r\n'
    whole, many = part + b"--x--\r\n", part * 1_000 + b"--x--\r\n"
    address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)

    def head(told: str, boundary: str = "x") -> bytes:
        kind = f"Content-Type: multipart/form-data; boundary={boundary}"
        return f"POST /documents HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}\r\n{told}\r\n\r\n".encode()

    def sized(body: bytes, more: int = 0) -> bytes:
        return head(f"Content-Length: {len(body) + more}") + body

    def chunked(*pieces: bytes) -> bytes:
        framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return head("Transfer-Encoding: chunked") + framed

    messages = {
        **{f"cut off after {share:.0%}": (sized(whole)[: int(len(sized(whole)) * share)], True)
           for share in (0.1, 0.5, 0.8, 0.9, 0.97)},
        "chunks that are cut off": (chunked(whole[:40]), True),
        "chunks without the form's end": (chunked(whole[:40]) + b"0\r\n\r\n", False),
        "a thousand parts": (sized(many), False),
        "a million bytes of header": (sized(b"--x\r\nContent-Disposition: " + b"a" * 10**6 + b"\r\n\r\nb\r\n"), False),
        "10,000 headers of a part": (sized(b"--x\r\n" + b"a: b\r\n" * 10_000 + b"\r\nb\r\n--x--\r\n"), False),
        "a boundary that never comes": (head("Content-Length: 9", "y") + b"--x\r\n\r\n\r\n", False),
        "two boundaries": (head("Content-Length: 9", "y; boundary=z") + b"--x\r\n\r\n\r\n", False),
        "an empty boundary": (head("Content-Length: 9", '""') + b"--x\r\n\r\n\r\n", False),
        "a boundary of 10,000 letters": (head("Content-Length: 9", "y" * 10_000) + b"--x\r\n\r\n\r\n", False),
        "a part without a name": (sized(whole.replace(b'name="files"; ', b"")), False),
        "a part of another name": (sized(whole.replace(b'"files"', b'"evil"')), False),
        "no end": (sized(part), False),
        "10 GB are announced": (head("Content-Length: 10737418240") + whole, False),
        "a length that is no number": (head("Content-Length: many") + whole, False),
        "a length below nothing": (head("Content-Length: -1") + whole, False),
        "two lengths": (head("Content-Length: 5\r\nContent-Length: 500") + whole, False),
        "a length and chunks": (head("Content-Length: 5\r\nTransfer-Encoding: chunked") + b"0\r\n\r\n", False),
        "a chunk of a negative size": (head("Transfer-Encoding: chunked") + b"-5\r\nhello\r\n0\r\n\r\n", False),
        "nothing": (sized(b""), False),
    }  # fmt: skip
    calls: dict[str, Callable[[], int | None]] = {
        f"upload: {label}": lambda data=data, hangs_up=hangs_up: _send(address, [data], hangs_up)  # type: ignore[misc]
        for label, (data, hangs_up) in messages.items()
    }
    slow = sized(part[:-2] + b"--x")  # ends without an end, a few bytes at a time
    calls["upload: a trickle"] = lambda: _send(address, [slow[at : at + 10] for at in range(0, len(slow), 10)], False)
    return calls


def _send(address: tuple[str, int], pieces: Sequence[bytes], hangs_up: bool) -> int | None:
    with socket.create_connection(address, timeout=20) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                if len(pieces) > 1:
                    time.sleep(0.02)  # what makes it a trickle
            if hangs_up:
                return None
            said = connection.recv(100)
        except (ConnectionError, BrokenPipeError):  # refused before all of it was sent
            return None
        except TimeoutError:
            return 599
    return int(said.split()[1]) if said.startswith(b"HTTP/1.1 ") else None


GOALS = (
    Goal(
        "hostile-files",
        "Hostile and broken documents (bombs, loops, deep nesting, wrong encodings, evil names, cut uploads) are "
        "refused or fail with a code, each within 10 s and 768 MB; no 5xx, nothing outside is asked, the service stays "
        "healthy.",
        try_hostile_files,
        n=114,  # half of the corpus with either database
        quick_n=0,
        is_timed=True,
    ),
)
