"""What can be seen of a real stack from outside: its logs, its figures, and its traces, through all processes."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.conftest import RunningStack, running_stack
from tests.otlp_collector import Collector, SeenSpan, collecting
from tests.waiting import until

NUM_WORKERS = 5
SETUP, BATCH, RETRIEVAL, TRAINING, INFERENCE = range(NUM_WORKERS)  # their ports, from the first
TEXT_CANARY, PROMPT_CANARY, QUERY_CANARY = "canarytext4711", "canaryprompt4712", "canaryquery4713"
CLIENTS_TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENTS_SPAN = "b7ad6b7169203331"
QUICK = {"num_epochs": 1, "batch_size": 2, "gradient_accumulation_steps": 1, "lora_rank": 4, "max_length": 96}


@dataclass
class Watched:
    """A stack that has trained an adapter and answered two questions, the second badly asked."""

    stack: RunningStack
    collector: Collector
    first_port: int
    key: str
    setup_id: str
    training_id: str
    created_by: str  # the request's id
    asked_by: str
    refused_by: str

    def lines(self) -> list[dict[str, Any]]:
        """Every line of every process's log; Redis writes its own."""
        logs = [path for path in (self.stack.data_dir / "logs").glob("*.log") if path.name != "redis.log"]
        return [_read(line) for path in logs for line in path.read_text().splitlines()]

    def about(self, request_id: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if request_id in json.dumps(line)]

    def figures(self, worker: int) -> dict[tuple[str, ...], float]:
        """A worker's samples, by name and the values of the labels, but the worker's own name."""
        text = httpx.get(f"http://127.0.0.1:{self.first_port + worker}/metrics").text
        return {
            (one.name, *(one.labels[label] for label in sorted(one.labels) if label != "worker")): one.value
            for family in text_string_to_metric_families(text)
            for one in family.samples
        }

    def span(self, name: str, **attributes: str) -> SeenSpan:
        """The one span of this name with these attributes, which may still be on its way."""

        def found() -> list[SeenSpan]:
            wanted = {f"finetuned.{key}": value for key, value in attributes.items()}.items()
            return [one for one in self.collector.named(name) if wanted <= one.attributes.items()]

        until(lambda: len(found()) > 0)
        (span,) = found()
        return span


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Watched]:
    first_port, data_dir = _free_ports(NUM_WORKERS), tmp_path_factory.mktemp("watched") / "data"
    with (
        collecting() as collector,
        running_stack(
            data_dir,
            models_dir,
            FINETUNED_LOG_FORMAT="json",
            FINETUNED_METRICS_PORT=str(first_port),
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="200",
        ) as stack,
    ):
        key = stack.post("/keys", 201, name="me", scopes=["admin"])["secret"]
        stack.http.headers["Authorization"] = f"Bearer {key}"
        lines = "".join(f"Which colour has door {n}?,{TEXT_CANARY} {n}.\n" for n in range(12))
        (row,) = stack.upload(("doors.csv", "question,answer\n" + lines))
        body = {"model": stack.model("gpt2"), "adapter": "doors", "document_ids": [row["id"]], **QUICK}
        made = stack.http.post("/fine-tuning/setup", json=body, params={"note": QUERY_CANARY})
        training = stack.wait(made.json()["training_job_id"])
        assert training["status"] == "succeeded", training
        asked = _ask(stack, {"query": f"Which? {PROMPT_CANARY}", "adapter": "doors", "max_new_tokens": 4})
        refused = _ask(stack, {"query": f"Which? {PROMPT_CANARY} " * 200, "adapter": "doors"})
        assert (asked.status_code, refused.status_code) == (200, 422)
        ids = [answer.headers["x-request-id"] for answer in (made, asked, refused)]
        yield Watched(stack, collector, first_port, key, made.json()["job_id"], training["id"], *ids)


def _ask(stack: RunningStack, body: dict[str, Any]) -> httpx.Response:
    headers = {"traceparent": f"00-{CLIENTS_TRACE}-{CLIENTS_SPAN}-01"}
    return stack.http.post("/fine-tuning/query", json=body, headers=headers)


def _read(line: str) -> dict[str, Any]:
    assert line.startswith("{"), line
    return dict(json.loads(line))


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    for first in range(20_000, 32_000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no ports are free")


# Logs


def test_every_line_of_every_process_is_one_json_object(watched: Watched) -> None:
    lines = watched.lines()  # each was read as JSON
    for line in lines:
        assert {"time", "level", "process", "pid", "logger", "message"} <= line.keys(), line
    expected = {"api", "setup", "batch", "training", "inference", "setup-job", "training-job", "migrations"}
    assert expected <= {line["process"] for line in lines}
    assert {"uvicorn.access", "uvicorn.error", "celery.worker.strategy"} <= {line["logger"] for line in lines}
    assert [line for line in lines if line["level"] in ("error", "critical")] == []


def test_the_id_of_the_request_that_made_a_job_is_found_in_every_process_that_worked_on_it(watched: Watched) -> None:
    lines = watched.about(watched.created_by)
    assert {line["process"] for line in lines} >= {"api", "setup", "training"}
    (access,) = [line for line in lines if line["logger"] == "uvicorn.access"]
    assert (access["method"], access["path"], access["status"]) == ("POST", "/fine-tuning/setup", 202)
    ended = {line["job_id"]: line for line in lines if "ended after" in line["message"]}
    assert ended.keys() == {watched.setup_id, watched.training_id}
    training = ended[watched.training_id]
    assert (training["attempt"], training["adapter"], training["project_id"]) == (1, "doors", "default")


def test_the_lines_of_a_jobs_own_process_name_it_too(watched: Watched) -> None:
    lines = [line for line in watched.about(watched.created_by) if line["process"].endswith("-job")]
    assert {line["job_id"] for line in lines} == {watched.setup_id, watched.training_id}
    (published,) = [line for line in lines if "published" in line["message"]]
    assert (published["process"], published["adapter"], published["version"]) == ("training-job", "doors", 1)


def test_the_id_of_a_question_leads_from_the_api_to_the_version_that_answered(watched: Watched) -> None:
    lines = watched.about(watched.asked_by)
    (answered,) = [line for line in lines if line["process"] == "inference"]
    assert (answered["adapter"], answered["version"], answered["completion_tokens"]) == ("doors", 1, 4)
    assert answered["question_id"].startswith("answer-")
    assert {line["process"] for line in lines} == {"api", "inference"}
    messages = [line["message"] for line in watched.about(watched.refused_by) if line["process"] == "inference"]
    assert any(one.endswith("refused: prompt_too_long") for one in messages)


def test_no_log_holds_a_text_a_prompt_a_query_string_or_a_key(watched: Watched) -> None:
    secrets = (TEXT_CANARY, PROMPT_CANARY, QUERY_CANARY, watched.key)
    for path in (watched.stack.data_dir / "logs").iterdir():
        assert [one for one in secrets if one in path.read_text()] == []


# Figures


def test_each_worker_shows_its_own_figures_and_what_it_is(watched: Watched) -> None:
    for worker, name in ((SETUP, "setup"), (BATCH, "batch"), (TRAINING, "training"), (INFERENCE, "inference")):
        seen = watched.figures(worker)
        assert [key[1] for key in seen if key[0] == "finetuned_build_info"] == [name]
        assert seen["process_resident_memory_bytes",] > 10 * 1024**2


def test_the_workers_of_jobs_show_how_attempts_ended_and_how_long_they_took(watched: Watched) -> None:
    for worker, kind in ((SETUP, "setup"), (TRAINING, "training")):
        until(
            lambda worker=worker, kind=kind: ("finetuned_attempts_total", kind, "succeeded") in watched.figures(worker)
        )  # type: ignore[misc]
        seen = watched.figures(worker)
        assert seen["finetuned_attempts_total", kind, "succeeded"] == 1
        assert seen["finetuned_attempt_seconds_count", kind] == 1
        assert 0 < seen["finetuned_attempt_seconds_sum", kind] < 120
        assert seen["finetuned_job_queue_seconds_count", kind] == 1


def test_a_running_training_shows_its_loss_and_its_speed(watched: Watched) -> None:
    stack, setup = watched.stack, watched.setup_id
    body = {"setup_job_id": setup, "adapter": "watched", **QUICK, "num_epochs": 400}
    job = stack.post("/fine-tuning/train", **body)["job_id"]
    until(lambda: any(key[0] == "finetuned_training_tokens_per_second" for key in watched.figures(TRAINING)))
    seen = watched.figures(TRAINING)
    assert seen["finetuned_running_jobs", "training"] == 1
    for name in ("loss", "step", "steps", "memory_bytes", "tokens_per_second", "learning_rate", "gradient_norm"):
        assert seen[f"finetuned_training_{name}", job, "default"] > 0
    stack.post(f"/fine-tuning/jobs/{job}/cancel", 200)
    until(lambda: ("finetuned_attempts_total", "training", "cancelled") in watched.figures(TRAINING))
    assert not any(key[0].startswith("finetuned_training_") for key in watched.figures(TRAINING))


def test_the_inference_worker_shows_its_times_its_batches_and_its_cache(watched: Watched) -> None:
    gpt2 = watched.stack.model("gpt2")
    until(lambda: watched.figures(INFERENCE).get(("finetuned_adapter_loads_total", gpt2), 0) == 1)
    seen = watched.figures(INFERENCE)
    assert seen["finetuned_time_to_first_token_seconds_count",] >= 1
    assert seen["finetuned_time_per_output_token_seconds_count",] >= 1
    assert seen["finetuned_queue_seconds_count",] >= 1
    assert seen["finetuned_answers_total", "length"] >= 1
    assert seen["finetuned_refused_questions_total", "prompt_too_long"] == 1
    assert seen["finetuned_adapter_load_seconds_total", gpt2] > 0
    assert seen["finetuned_loaded_adapters", gpt2] == 1
    assert seen["finetuned_cache_slots", gpt2] == 16
    assert seen["finetuned_batch_size_count", gpt2] == seen["finetuned_engine_steps_total", gpt2] > 0


def test_the_indexer_shows_what_it_holds_and_that_nothing_waits(watched: Watched) -> None:
    until(lambda: watched.figures(RETRIEVAL).get(("finetuned_index_documents",)) == 1)
    seen = watched.figures(RETRIEVAL)
    assert (seen["finetuned_index_lag_seconds",], seen["finetuned_index_failures_total",]) == (0, 0)
    assert seen["finetuned_index_entered_documents_total",] == 1


# Traces


def test_an_answer_is_traced_from_the_clients_span_to_its_tokens(watched: Watched) -> None:
    request = watched.span("POST /fine-tuning/query", request_id=watched.asked_by)
    assert (request.trace_id, request.parent_id) == (CLIENTS_TRACE, CLIENTS_SPAN)
    assert (request.service, request.attributes["http.response.status_code"]) == ("finetuned-api", 200)
    answer = watched.span("answer", request_id=watched.asked_by)
    assert answer in watched.collector.below(request)
    assert (answer.service, answer.attributes["finetuned.version"]) == ("finetuned-inference", 1)
    phases = sorted(watched.collector.below(answer), key=lambda one: one.begins_at)
    assert [one.name for one in phases] == ["queue", "prepare", "schedule", "prefill", "decode"]
    assert phases[-1].events == ("first token",)
    for earlier, later in pairwise(phases):
        assert earlier.ends_at == later.begins_at
    assert request.begins_at <= answer.begins_at < answer.ends_at <= request.ends_at


def test_a_refused_question_is_an_error_in_its_trace(watched: Watched) -> None:
    answer = watched.span("answer", request_id=watched.refused_by)
    assert (answer.is_error, answer.attributes["finetuned.refused"]) == (True, "prompt_too_long")


def test_jobs_have_traces_of_their_own_which_link_to_the_request_and_to_each_other(watched: Watched) -> None:
    request = watched.span("POST /fine-tuning/setup", request_id=watched.created_by)
    setup = watched.span("setup job", job_id=watched.setup_id)
    training = watched.span("training job", job_id=watched.training_id)
    assert len({request.trace_id, setup.trace_id, training.trace_id}) == 3
    assert setup.links == ((request.trace_id, request.span_id),)
    assert training.links == ((request.trace_id, request.span_id), (setup.trace_id, setup.span_id))
    assert (training.service, training.attributes["finetuned.outcome"]) == ("finetuned-training", "succeeded")
    assert training.ends_at - training.begins_at > 0.1


def test_no_span_holds_a_text_a_prompt_a_query_string_or_a_key(watched: Watched) -> None:
    watched.span("training job", job_id=watched.training_id)
    told = repr(watched.collector.spans)
    assert [one for one in (TEXT_CANARY, PROMPT_CANARY, QUERY_CANARY, watched.key) if one in told] == []
    assert not re.search(r"/health|/metrics", told)


def test_log_lines_name_the_trace(watched: Watched) -> None:
    (access,) = [line for line in watched.about(watched.asked_by) if line["logger"] == "uvicorn.access"]
    assert access["trace_id"] == CLIENTS_TRACE
