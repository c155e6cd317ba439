"""`python -m worker.inference`: the inference worker's process."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from prometheus_client import CollectorRegistry

from shared.database import Database
from shared.exporter import serve_metrics
from shared.logs import set_up_logging
from shared.quick_imports import quick_imports
from shared.settings import Settings, get_settings
from shared.storage import Storage
from shared.tracing import open_traces
from worker.gpus import find_gpus
from worker.inference.heartbeat import Heartbeat, Keeper
from worker.inference.measures import Measures, Shown
from worker.inference.models import LoadedModels, load_base
from worker.inference.preloading import Preloader
from worker.inference.preparation import Preparation
from worker.inference.questions import QuestionStream, connect
from worker.inference.recording import Recorder
from worker.inference.registry import Registry
from worker.inference.service import InferenceService
from worker.inference.tracing import AnswerTraces

log = logging.getLogger("worker.inference")


def main(settings: Settings) -> None:
    """Answers questions until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    _keep_compiler_out(settings)
    worker_id = f"inference@{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    database = Database(settings.resolved_database_url)
    questions = QuestionStream(connect(settings.resolved_redis_url), worker_id)
    models = LoadedModels(lambda name: load_base(name, settings), settings.max_loaded_models)
    registry = Registry(database, Storage(settings.data_dir), allows_fallback=settings.fallback)
    recorder = Recorder(database, stores_queries=settings.store_queries, retention_days=settings.answer_retention_days)
    measures = Measures(recorder.record, lambda: recorder.num_dropped)
    traces = open_traces(settings, "inference")
    service = InferenceService(
        questions,
        Preparation(registry, models),
        capacity=settings.max_batch_size,
        measures=measures,
        traces=None if traces is None else AnswerTraces(traces),
    )
    _show(settings, Shown(worker_id, measures))
    heartbeat = Heartbeat(database, worker_id, details=lambda: _details(settings, models, service, measures))
    keeper = Keeper(questions, service.entries)
    preloader = Preloader(registry, service.preload)
    for thread in (heartbeat, keeper, preloader, recorder):
        thread.start()
    # The first adapter needs PEFT, whose import takes seconds; the base model can answer meanwhile.
    models.preload(settings.base_model).add_done_callback(lambda _: _import_peft())
    log.info("%s pulls questions", worker_id)
    service.run(stop)
    for thread in (keeper, preloader, recorder, heartbeat):
        thread.stop()
    questions.close()
    if traces is not None:
        traces.close()
    log.info("%s stopped", worker_id)


def _keep_compiler_out(settings: Settings) -> None:
    """Only vLLM compiles. Without it, bitsandbytes, which PEFT imports, need not load torch's compiler: half a second,
    and 50 MB."""
    if settings.inference_engine == "builtin" or find_spec("vllm") is None:
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


def _import_peft() -> None:
    with quick_imports():
        importlib.import_module("peft")
    gc.freeze()  # it stays: a look through all of it for garbage would hold up every answer (seen: 0.26 s)


def _show(settings: Settings, shown: Shown) -> None:
    """On the port for Prometheus, if there is one."""
    registry = CollectorRegistry()
    registry.register(shown)
    if (gpus := find_gpus()) is not None:
        registry.register(gpus)
    serve_metrics(registry, settings, "inference")


def _details(settings: Settings, models: LoadedModels, service: InferenceService, measures: Measures) -> dict[str, Any]:
    return {
        "base_model": settings.base_model,
        "loaded_models": models.names(),
        "missing": models.missing(),
        "num_questions": service.num_questions,
        "measures": measures.snapshot().model_dump(mode="json"),
        "version": version("finetuned"),
    }


if __name__ == "__main__":
    set_up_logging(get_settings().log_format, "inference")
    main(get_settings())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread that loads a model, perhaps from a slow hub, must not hold the process
