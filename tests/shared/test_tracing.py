"""Traces are sent where an endpoint is set, cost nothing where none is, and never hold a process up."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import pytest

from shared.errors import FinetunedError
from shared.settings import Settings
from shared.tracing import SpanIds, context_of, open_traces, trace_id_of, traceparent_of
from tests.otlp_collector import collecting

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def to(url: str, settings: Settings) -> Settings:
    return settings.model_copy(update={"otlp_endpoint": url})


def test_without_an_endpoint_no_process_imports_what_traces_need() -> None:
    script = (
        "import sys, json; from shared.settings import Settings; from shared.tracing import open_traces; "
        "import api.main, worker.jobs.telemetry, worker.inference.service; "
        "api.main.create_app(Settings()); assert open_traces(Settings(), 'api') is None; "
        "needed = ('opentelemetry.sdk.trace', 'opentelemetry.exporter'); "
        "print(json.dumps([one for one in sys.modules if one.startswith(needed)]))"  # FastAPI imports the interface
    )
    assert json.loads(subprocess.check_output([sys.executable, "-c", script])) == []


def test_a_span_comes_with_its_parent_its_links_its_ids_and_its_times(settings: Settings) -> None:
    with collecting() as collector:
        traces = open_traces(to(collector.url, settings), "setup")
        assert traces is not None
        ids = SpanIds.of_attempt("ftjob-1", 2)
        alone = traces.begin("alone", ids=ids, links=[PARENT, "nonsense"], at=1000.0, attributes={"a": 1, "b": None})
        below = traces.begin("below", parent=traceparent_of(alone))
        below.end()
        alone.end(2_000_000_000_000)
        traces.close()
        (seen,), (child,) = collector.named("alone"), collector.named("below")
    assert (seen.service, seen.begins_at, seen.ends_at, seen.attributes) == ("finetuned-setup", 1000, 2000, {"a": 1})
    assert seen.links == (("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"),)
    assert f"00-{seen.trace_id}-{seen.span_id}-01" == ids.traceparent
    assert ids.traceparent[:-2] == traceparent_of(alone)[:-2]  # the flags may say more
    assert (child.trace_id, child.parent_id) == (seen.trace_id, seen.span_id)
    assert child.span_id != seen.span_id


def test_attempts_at_a_job_share_a_trace_that_no_other_job_has() -> None:
    first, second, other = (SpanIds.of_attempt(*one) for one in (("job-1", 1), ("job-1", 2), ("job-2", 1)))
    assert first.trace_id == second.trace_id != other.trace_id
    assert len({first.span_id, second.span_id, other.span_id}) == 3
    assert trace_id_of(first.traceparent) == f"{first.trace_id:032x}"


@pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-00", f"00-{'0' * 32}-{'0' * 16}-01", "00-" + "f" * 9000])
def test_a_header_that_breaks_the_rules_is_no_parent(header: str) -> None:
    assert context_of(header) is None


@pytest.mark.parametrize("is_listening", [True, False])
def test_a_collector_that_does_not_answer_holds_no_process_up(settings: Settings, is_listening: bool) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if is_listening:
            silent.listen()
        traces = open_traces(to(f"http://127.0.0.1:{silent.getsockname()[1]}", settings), "api")
        assert traces is not None
        began_at = time.monotonic()
        for _ in range(5000):  # more than the exporter keeps
            traces.begin("lost").end()
        assert time.monotonic() - began_at < 5
        traces.close()
        assert time.monotonic() - began_at < 15


def test_a_missing_package_is_said_with_its_cure(settings: Settings) -> None:
    script = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; from shared.settings import Settings; "
        "from shared.tracing import open_traces\n"
        "try: open_traces(Settings(otlp_endpoint='http://127.0.0.1:9'), 'api')\n"
        "except Exception as error: print(type(error).__name__, error.detail)"
    )
    said = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert said.startswith(FinetunedError.__name__)
    assert "pip install 'finetuned[tracing]'" in said
