"""A worker's own port for Prometheus. The API shows its figures at `/metrics` instead, among its other routes."""

from __future__ import annotations

import logging
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, start_http_server

from shared.settings import Settings

log = logging.getLogger(__name__)


def serve_metrics(registry: CollectorRegistry, settings: Settings, process: str) -> int | None:
    """Shows the registry, and what every process has (memory, processor time, open files), until the process ends; a
    thread answers. Returns the port, or None where none is set, or it is taken: a worker is worth more than its
    figures."""
    if not settings.metrics_port:
        return None
    ProcessCollector(registry=registry)
    about = Gauge("finetuned_build_info", "Always 1.", ("version", "process"), registry=registry)
    about.labels(version("finetuned"), process).set(1)
    try:
        server, _ = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as error:
        address = f"{settings.metrics_host}:{settings.metrics_port}"
        log.error("no figures for Prometheus: %s cannot be listened on: %s", address, error.strerror or error)
        return None
    log.info("figures for Prometheus on http://%s:%d/metrics", settings.metrics_host, server.server_port)
    return server.server_port
