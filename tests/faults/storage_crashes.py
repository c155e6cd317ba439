"""Processes that are killed at the k-th thing they do to the files or to the database, and what they did until then."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.orm import Session, SessionTransaction
from tqdm import tqdm

_REMOVALS = ("os.remove", "os.rmdir")
_PLACINGS = ("os.rename", "os.link")
# No lock of a progress bar may be held by what is gone: tqdm's own is shared between forks, so one that is killed while
# it holds it stops all others, and a thread of tqdm's may hold it in the moment of a fork.
tqdm.set_lock(threading.RLock())
tqdm.monitor_interval = 0
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Operation:
    """Something that is about to be done. `path` is what it is done to; `target` where a rename or a link leads, and
    `holds` all that lies under `path` at that moment."""

    kind: str
    path: str = ""
    target: str = ""
    holds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """To die at operation number `last` (None: never), at once or so many seconds later; or to be unable to let a file
    grow beyond `most_bytes` (but the database's, which lies on a disk of its own)."""

    last: int | None = None
    delay_seconds: float = 0.0
    most_bytes: int | None = None


@dataclass(frozen=True)
class Ending:
    """How a child ended: what it did or was about to do, whether it did all, and what it said if it failed; `code` is
    that of the tree's error."""

    operations: Sequence[Operation]
    is_done: bool
    words: str
    code: str


class Watch:
    """Tells of each operation under `root` before it is done, from within the process that does it. It begins where
    `begins` says so of an event and its path; there the process waits for orders, and forks a child for each: the child
    goes on with the work and dies at the operation that the order names."""

    def __init__(
        self, root: Path, begins: Callable[[str, str], bool], orders: int, told: int, after_fork: Callable[[], None]
    ) -> None:
        self._root = str(root)
        self._begins = begins
        self._orders = orders
        self._told = told
        self._after_fork = after_fork
        self._has_begun = False
        self._order = Order()
        self._num_seen = 0
        self._is_busy = False
        self._fsync = os.fsync

    def install(self) -> None:
        """For the rest of this process's life."""
        os.fsync = self._watched_fsync
        event.listen(Engine, "commit", lambda connection: self._see("commit"))
        event.listen(Session, "after_commit", lambda session: self._see("committed"))
        sys.addaudithook(self._audit)

    def _audit(self, name: str, args: tuple[Any, ...]) -> None:
        if self._is_busy:
            return
        if not self._has_begun and args and isinstance(args[0], str | Path):
            self._begin_if(name, str(args[0]))
        match name, args:
            case "open", (str(path), _, int(flags)) if flags & _WRITING:
                self._see("open", path)
            case (("os.mkdir" | "shutil.rmtree"), (path, *_)):
                self._see(name, os.fspath(path))
            case _, (path, int(folder)) if name in _REMOVALS and folder >= 0:
                self._see(name, os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path))
            case _, (path, *_) if name in _REMOVALS:
                self._see(name, os.fspath(path))
            case _, (path, target, *_) if name in _PLACINGS:
                self._see(name, os.fspath(path), os.fspath(target))

    def _watched_fsync(self, descriptor: int) -> None:
        self._see("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        self._fsync(descriptor)

    def _begin_if(self, name: str, path: str) -> None:
        if path.startswith(self._root) and self._begins(name, path[len(self._root) :]):
            self._has_begun = self._is_busy = True
            self._fork_by_orders()
            self._is_busy = False

    def _fork_by_orders(self) -> None:
        """Returns in the children alone."""
        self.tell({"waits": True})
        with os.fdopen(self._orders) as orders:
            for line in orders:
                child = os.fork()
                if child == 0:
                    self._order = Order(*json.loads(line))
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)
                    self._after_fork()
                    if self._order.most_bytes is not None:
                        limit_files(self._order.most_bytes)
                    return
                self.tell({"ended": os.waitpid(child, 0)[1]})
        os._exit(0)

    def tell(self, words: Any) -> None:
        os.write(self._told, (json.dumps(words) + "\n").encode())

    def _see(self, kind: str, path: str = "", target: str = "") -> None:
        if not self._has_begun or (path and not path.startswith(self._root)):
            return
        self._is_busy = True
        cut = len(self._root)
        holds = [str(one)[cut:] for one in Path(path).rglob("*")] if target else []
        self.tell([kind, path[cut:], target[cut:], holds])
        self._is_busy = False
        if self._num_seen == self._order.last:
            self._die()
        self._num_seen += 1

    def _die(self) -> None:
        if self._order.delay_seconds:  # by the kernel, whatever it is doing by then, be it Rust's or C's
            signal.setitimer(signal.ITIMER_REAL, self._order.delay_seconds)
        else:
            os.kill(os.getpid(), signal.SIGKILL)


class Crasher:
    """A process that has come to the point where its work begins to write, and does the rest as often as it is asked,
    each time in a fork, which first does `after_fork`."""

    def __init__(
        self,
        work: Callable[[], None],
        root: Path,
        begins: Callable[[str, str], bool],
        after_fork: Callable[[], None],
    ) -> None:
        order_reading, self._orders = os.pipe()
        reading, told = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.setpgid(0, 0)
            os.close(self._orders)
            os.close(reading)
            _work(work, Watch(root, begins, order_reading, told, after_fork))
        os.close(order_reading)
        os.close(told)
        self._lines = os.fdopen(reading)
        first = self._next()
        assert first == {"waits": True}, first

    def run(self, order: Order) -> Ending:
        """What a fork of it did."""
        os.write(self._orders, (json.dumps(list(astuple(order))) + "\n").encode())
        operations, words, code = [], "", ""
        while not isinstance(line := self._next(), dict) or "ended" not in line:
            if isinstance(line, dict):
                words, code = str(line.get("error", line)), str(line.get("code", ""))
            else:
                operations.append(Operation(line[0], line[1], line[2], tuple(line[3])))
        return Ending(operations, line["ended"] == 0, words or f"wait status {line['ended']}", code)

    def close(self) -> None:
        """Ends it and its forks, in whichever state they are."""
        os.close(self._orders)
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._lines.close()

    def _next(self) -> Any:
        line = self._lines.readline()
        try:
            return json.loads(line)
        except ValueError:
            assert line, "the process is gone"
            return {}  # torn by a kill


def _work(work: Callable[[], None], watch: Watch) -> None:
    code = 1
    try:
        watch.install()
        work()
        code = 0
    except BaseException as error:  # noqa: BLE001 - the outermost edge of a process: it is told, and the process ends
        watch.tell({"error": traceback.format_exc(), "code": getattr(error, "code", type(error).__name__)})
    finally:
        os._exit(code)


def limit_files(most_bytes: int) -> None:
    """No file of this process grows further (EFBIG), but within transactions."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))

    def limit_again(session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:  # a flush has one of its own
            limit()

    def lift(*_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    event.listen(Engine, "do_connect", lift)
    event.listen(Engine, "begin", lift)
    event.listen(Session, "after_transaction_end", limit_again)
    limit()


def unsafe_orders(operations: Sequence[Operation]) -> list[str]:
    """What a power cut could tear: a rename before the fsync of something that it shows, or a commit before the fsync
    of the folder into which something was put."""
    unkept: dict[str, str] = {}
    synced: set[str] = set()
    found = []
    for one in operations:
        if one.kind == "fsync":
            synced.add(one.path)
            unkept.pop(one.path, None)
        elif one.kind == "open":
            synced.discard(one.path)
        elif one.kind == "os.rename" and not _is_hidden(one.target):
            shown = (one.path, *one.holds)
            found += [f"{one.target} appears before {path} was fsynced" for path in shown if path not in synced]
            unkept[os.path.dirname(one.target)] = one.target
        elif one.kind == "commit":
            found += [f"committed before the entry of {target} was fsynced" for target in unkept.values()]
    return found


def _is_hidden(path: str) -> bool:
    """Under such a name nobody looks for anything: it is on its way in, or out."""
    return "/staging/" in path or "/.staged-" in path
