"""A worker's own port for Prometheus."""

from __future__ import annotations

import socket

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from shared.exporter import serve_metrics
from shared.settings import Settings


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_without_a_port_nothing_listens(settings: Settings) -> None:
    assert settings.metrics_port == 0
    assert serve_metrics(CollectorRegistry(), settings, "setup") is None


def test_a_registry_is_shown_beside_what_every_process_has(settings: Settings, port: int) -> None:
    registry = CollectorRegistry()
    Counter("finetuned_tests", "Of this test.", registry=registry).inc(3)
    assert serve_metrics(registry, settings.model_copy(update={"metrics_port": port}), "setup") == port
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert "finetuned_tests_total 3.0" in text
    assert 'process="setup"' in text
    assert "process_resident_memory_bytes" in text


def test_a_port_that_is_taken_costs_the_figures_and_not_the_worker(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = settings.model_copy(update={"metrics_port": other.getsockname()[1]})
        assert serve_metrics(CollectorRegistry(), taken, "setup") is None
    assert "cannot be listened on: Address already in use" in caplog.text
