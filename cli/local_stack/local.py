"""What the local stack consists of, made from the settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from cli.client import Client, Json
from cli.errors import CommandError
from cli.local_stack import ports, redis
from cli.local_stack.lock import FolderLock
from cli.local_stack.part import Part
from cli.local_stack.stack import Say, Stack
from shared.base_models import check_allowed
from shared.errors import ModelNotAllowed
from shared.settings import Settings

_STORES, _WORKERS, _API = range(3)  # stages


@dataclass(frozen=True)
class Shape:
    """How many workers, and what else is set in the environment of every part."""

    training_workers: int = 1
    inference_workers: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    is_verbose: bool = False


class LocalStack:
    """A stack on one data folder. Making it checks folder, port and Redis, and starts nothing.

    Use it as a context manager: leaving it stops every process and gives the folder free.
    """

    def __init__(self, settings: Settings, shape: Shape, say: Say) -> None:
        data_dir = settings.data_dir.expanduser().resolve()
        self._lock = FolderLock(data_dir)
        try:
            port = ports.check_free(settings.host, settings.port)
            broker = _broker(settings.redis_url, data_dir, say)
        except BaseException:
            self._lock.release()
            raise
        self.client = Client(ports.url_of(settings.host, port))
        self.log_dir = data_dir / "logs"
        redis_url = settings.redis_url if broker is None else broker.url
        update = {"data_dir": data_dir, "port": port, "redis_url": redis_url, "allowed_models": _allowed(settings)}
        self.settings = settings.model_copy(update=update)
        self.stack = Stack(
            [*([] if broker is None else [broker.part]), *_parts(self.settings, shape)],
            log_dir=self.log_dir,
            missing=self._missing,
            say=say,
            inherited=[self._lock.descriptor],
            is_verbose=shape.is_verbose,
        )

    def __enter__(self) -> Stack:
        return self.stack

    def __exit__(self, *exception: object) -> None:
        self.stack.stop()
        self.client.close()
        self._lock.release()

    def remarks(self) -> list[str]:
        """What is missing although the stack is ready: a base model that is not on disk."""
        return _details(self.client.readiness())

    def _missing(self) -> str | None:
        try:
            found = self.client.readiness()
        except CommandError:
            return "the API does not answer yet"
        return None if found["ready"] else " ".join(_details(found))


def _details(readiness: Json) -> list[str]:
    return [part["detail"] or name for name, part in readiness["parts"].items() if not part["ready"]]


def _broker(redis_url: str | None, data_dir: Path, say: Say) -> redis.Embedded | None:
    """Our own server; None if the user named one, which is checked."""
    if redis_url is not None:
        redis.check(redis_url)
        return None
    socket = redis.socket_for(data_dir)
    if socket.parent.parent != data_dir:
        say(f"The path of the data folder does not suit a socket; Redis listens on {socket}.")
    return redis.Embedded(data_dir, socket)


def _parts(settings: Settings, shape: Shape) -> list[Part]:
    """All parts but Redis."""
    env = {**_environment(settings), **shape.env}
    patient = settings.stop_timeout_seconds + 15.0  # a trainer writes its checkpoint first

    figures = count(settings.metrics_port)  # a port for each worker's; the API needs none

    def part(name: str, module: str, *arguments: str, stage: int, grace_seconds: float = 15.0) -> Part:
        argv = [sys.executable, "-m", module, *arguments]
        shows = settings.metrics_port and stage == _WORKERS
        own = {**env, "FINETUNED_METRICS_PORT": str(next(figures) if shows else 0)}
        return Part(name, argv, own, stage, runs_once=name == "migrations", grace_seconds=grace_seconds)

    return [
        part("migrations", "shared.migrations", stage=_STORES),
        part("setup", "worker.jobs", "setup", stage=_WORKERS),
        part("batch", "worker.jobs", "batch", stage=_WORKERS),
        part("retrieval", "worker.retrieval", stage=_WORKERS),
        *(
            part(f"training-{number}", "worker.jobs", "training", stage=_WORKERS, grace_seconds=patient)
            for number in range(1, shape.training_workers + 1)
        ),
        *(
            part(f"inference-{number}", "worker.inference", stage=_WORKERS)
            for number in range(1, shape.inference_workers + 1)
        ),
        part("sweep", "worker.jobs", "sweep", stage=_WORKERS),
        part("api", "api", stage=_API),
    ]


def _environment(settings: Settings) -> dict[str, str]:
    """What makes every part read the same settings as we did."""
    return {
        "FINETUNED_DATA_DIR": str(settings.data_dir),
        "FINETUNED_HOST": settings.host,
        "FINETUNED_PORT": str(settings.port),
        "FINETUNED_BASE_MODEL": settings.base_model,
        "FINETUNED_ALLOWED_MODELS": json.dumps(settings.allowed_models),
        "DATABASE_URL": settings.resolved_database_url,
        "REDIS_URL": settings.resolved_redis_url,
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # a folder named api/ or shared/ where the user happens to stand is not ours
    }


def _allowed(settings: Settings) -> tuple[str, ...]:
    """The allow-list, and the chosen base model."""
    try:
        check_allowed(settings.base_model, settings.allowed_models)
    except ModelNotAllowed:
        return (*settings.allowed_models, settings.base_model)
    return settings.allowed_models
