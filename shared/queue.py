"""The doorbell: a Celery message that carries a job's id and nothing else.

The job is its row. A message may be lost, late or doubled: workers also look into the table by themselves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from celery import Celery
from kombu import Connection
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from shared.settings import Settings

RUN_JOB = "finetuned.run_job"  # the task's name, so that the API need not import the worker
ENOUGH_MESSAGES = 100  # waiting ones of a kind; a woken worker works until nothing is due, so more would wake nobody
_PUBLISH_TIMEOUT_SECONDS = 1.0

log = logging.getLogger(__name__)


def celery_app(settings: Settings) -> Celery:
    """The Celery application; `worker.jobs.tasks` registers the one task."""
    app = Celery("finetuned", broker=_broker_url(settings), include=["worker.jobs.tasks"])
    app.conf.update(
        # The message is acknowledged before the work: the row's lease, not Redis, decides who works on a job.
        task_acks_late=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_publish_retry=False,
        # By default Celery kills a new pool process that is not up in 4 seconds, and on a busy machine the next, too.
        worker_proc_alive_timeout=60.0,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # Celery 6 will default to True
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Without socket timeouts a half-open connection is waited on for ever (celery #10502).
        broker_transport_options={
            "visibility_timeout": 600,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 5,
        },
    )
    return app


class Doorbell:
    """Sends the wake-up messages of jobs to the workers of their kind, over a connection that it keeps."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._turn = threading.Lock()
        self._connection: Connection | None = None
        self._publisher = app.connection_for_write(
            transport_options={
                "socket_timeout": _PUBLISH_TIMEOUT_SECONDS,
                "socket_connect_timeout": _PUBLISH_TIMEOUT_SECONDS,
                "max_retries": 0,
            }
        )

    def ring(self, kind: str, *job_ids: str) -> bool:
        """Whether there are messages enough now; where nobody takes any, they do not pile up. Never raises for a
        broker that is away: the workers look into the table by themselves."""
        with self._turn:
            if self._connection is not None and self._has_sent(self._connection, kind, job_ids):
                return True
            # There is none yet, or the kept one has died with a server that is back by now.
            self._connection = self._publisher.clone()
            return self._has_sent(self._connection, kind, job_ids)

    def close(self) -> None:
        """Gives the connection back. Whoever rings again gets a new one."""
        with self._turn:
            if self._connection is not None:
                self._connection.release()
                self._connection = None

    def _has_sent(self, connection: Connection, kind: str, job_ids: Sequence[str]) -> bool:
        try:
            channel: Any = connection.default_channel  # its type says less than it can
            num_waiting = channel.queue_declare(kind).message_count
            for job_id in job_ids[: max(0, ENOUGH_MESSAGES - num_waiting)]:
                self.app.send_task(RUN_JOB, args=[job_id], connection=connection, queue=kind, ignore_result=True)
        except (KombuError, RedisError, OSError) as error:
            log.warning("could not ring for %d jobs, first %s: %s", len(job_ids), job_ids[0], type(error).__name__)
            connection.release()
            self._connection = None
            return False
        return True


def _broker_url(settings: Settings) -> str:
    """Celery's spelling of the URL of a Unix socket differs from redis-py's."""
    return settings.resolved_redis_url.replace("unix://", "redis+socket://", 1)
