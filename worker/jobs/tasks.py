"""The one Celery task, and the worker's life: a prefork pool of one process, which holds the supervisor."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

from celery import signals
from prometheus_client import CollectorRegistry

from shared.database import Database
from shared.exporter import serve_metrics
from shared.logs import set_up_logging
from shared.queue import RUN_JOB, Doorbell, celery_app
from shared.settings import get_settings
from shared.tracing import open_traces
from worker.gpus import find_gpus
from worker.jobs.child import forkserver_for
from worker.jobs.reconciler import Reconciler
from worker.jobs.supervisor import Supervisor
from worker.jobs.telemetry import Telemetry

app = celery_app(get_settings())
_standard_process = multiprocessing.current_process()
_is_stopping = multiprocessing.RawValue("b", False)  # set in Celery's main process, seen in the pool's
_pool: dict[str, Any] = {}  # the pool process's supervisor and reconciler


@app.task(name=RUN_JOB)
def run_job(job_id: str) -> None:
    """The bell rang. Which job is due is the table's to say, so the id is only for the log."""
    logging.getLogger(__name__).info("woken for job %s", job_id)
    _pool["supervisor"].work()


def serve(name: str, runners: Mapping[str, str]) -> None:
    """Runs the worker of this name until it is told to stop; `runners` has the kinds of jobs that it works for."""
    set_up_logging(get_settings().log_format, name)
    sys.__stdout__ = None  # type: ignore[misc] # Celery's goodbye, which it writes there, is no line of a log
    app.conf.finetuned_kind, app.conf.finetuned_runners = name, dict(runners)
    # Not by `worker_main`: Celery's command line imports a tenth of a second of things that only a terminal needs.
    worker = app.Worker(
        hostname=f"{name}-{os.getpid()}@{socket.gethostname()}",
        queues=list(runners),
        concurrency=1,
        pool_cls="prefork",
        loglevel="INFO",
        quiet=True,  # a banner is no line of a log
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    sys.exit(worker.exitcode)


@signals.setup_logging.connect
def _leave_logging_alone(**_: Any) -> None:
    """Celery sets nothing up where somebody listens: its lines go the way of all others."""


@signals.worker_process_init.connect
def _begin(**_: Any) -> None:
    try:
        _start_supervisor()
    except Exception:
        # Celery would swallow it, and the worker would be there and do nothing.
        logging.getLogger(__name__).exception("the worker cannot start")
        os.kill(os.getppid(), signal.SIGTERM)
        os._exit(1)


def _start_supervisor() -> None:
    # Celery's pool puts its own process object (a daemon, which may have no children) in the standard library's
    # place. We start children by the standard library; they die with the fork server, which dies with this process.
    multiprocessing.process._current_process = _standard_process  # type: ignore[attr-defined]
    kind, runners, settings = app.conf.finetuned_kind, app.conf.finetuned_runners, get_settings()
    database = Database(settings.resolved_database_url)
    registry, traces = CollectorRegistry(), open_traces(settings, kind)
    if kind == "training" and (gpus := find_gpus()) is not None:
        registry.register(gpus)
    owner = f"{kind}@{socket.gethostname()}:{os.getpid()}"
    supervisor = Supervisor(
        kind=kind,
        owner=owner,
        settings=settings,
        database=database,
        doorbell=Doorbell(app),
        runner=runners[kind],
        others={other: runner for other, runner in runners.items() if other != kind},
        processes=forkserver_for(runners[kind]),  # what the rarer kinds import, they import themselves
        is_stopping=lambda: bool(_is_stopping.value),
        telemetry=Telemetry(registry, traces),
    )
    serve_metrics(registry, settings, kind)
    _pool["traces"] = traces
    _pool["supervisor"] = supervisor
    _pool["reconciler"] = Reconciler(supervisor, database, settings)
    _pool["reconciler"].start()


@signals.worker_shutting_down.connect
def _stop_supervisor(**_: Any) -> None:
    _is_stopping.value = True


@signals.worker_process_shutdown.connect
def _leave(**_: Any) -> None:
    if "reconciler" in _pool:
        _is_stopping.value = True
        _pool["supervisor"].wait_idle()  # Celery waits for its tasks only, and the reconciler runs jobs too
        _pool["reconciler"].stop()
        if _pool["traces"] is not None:
            _pool["traces"].close()
