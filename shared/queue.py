"""The doorbell: a Celery message that carries a job's id and nothing else.

The job is its row. A message may be lost, late or doubled: workers also look into the table by themselves.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from shared.settings import Settings

RUN_JOB = "finetuned.run_job"  # the task's name, so that the API need not import the worker
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
    """Sends the wake-up message of a job to the workers of its kind."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._publisher = app.connection_for_write(
            transport_options={
                "socket_timeout": _PUBLISH_TIMEOUT_SECONDS,
                "socket_connect_timeout": _PUBLISH_TIMEOUT_SECONDS,
                "max_retries": 0,
            }
        )

    def ring(self, kind: str, job_id: str) -> bool:
        """Whether the message was sent. Never raises for a broker that is away: the reconciler rings later."""
        options: dict[str, Any] = {"queue": kind, "ignore_result": True}
        try:
            with self._publisher.clone() as connection:
                self.app.send_task(RUN_JOB, args=[job_id], connection=connection, **options)
        except (KombuError, RedisError, OSError) as error:
            log.warning("could not ring for job %s: %s", job_id, type(error).__name__)
            return False
        return True


def _broker_url(settings: Settings) -> str:
    """Celery's spelling of the URL of a Unix socket differs from redis-py's."""
    return settings.resolved_redis_url.replace("unix://", "redis+socket://", 1)
