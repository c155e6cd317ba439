"""The metrics' names and shapes: one table of what is read where, so that a new measure is a new line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from api.answers.summary import AnswersSummary
from shared.measures import EngineMeasures, Histogram, WorkerMeasures
from shared.repositories.job_statistics import Durations, Queue

_QUALITY_LABELS = ("project", "model", "adapter", "version")


@dataclass(frozen=True)
class VersionQuality:
    """The latest answers of one version, or of a base model: its labels, in the order of the table, and their sum."""

    labels: tuple[str, str, str, str]
    summary: AnswersSummary


@dataclass(frozen=True)
class RunningTraining:
    """A training at this moment: its project, its id, and what it reports."""

    project: str
    job: str
    progress: Mapping[str, Any]


@dataclass(frozen=True)
class Readings(Collector):
    """What was read at one moment; `collect` renders it."""

    workers: Mapping[str, WorkerMeasures]
    num_workers: Mapping[str, int]
    num_jobs: Mapping[str, int]
    queues: Sequence[Queue]
    durations: Sequence[Durations]
    trainings: Sequence[RunningTraining]
    num_waiting: int | None
    qualities: Sequence[VersionQuality]

    def collect(self) -> Iterator[Metric]:
        yield _gauge("workers", "Workers whose heartbeat is fresh.", ("kind",), _by_key(self.num_workers))
        yield _gauge("jobs", "Jobs by status.", ("status",), _by_key(self.num_jobs))
        if self.num_waiting is not None:
            yield _gauge("waiting_questions", "Questions that no worker has taken.", (), [((), self.num_waiting)])
        yield from self._of_jobs()
        yield from self._of_trainings()
        yield from self._of_workers()
        yield from self._of_engines()
        yield from self._of_answers()

    def _of_jobs(self) -> Iterator[Metric]:
        depths = [((one.kind,), one.num_jobs) for one in self.queues]
        ages = [((one.kind,), one.oldest_seconds) for one in self.queues]
        yield _gauge("queued_jobs", "Jobs that wait for a worker.", ("kind",), depths)
        yield _gauge("queue_age_seconds", "How long the first of them has waited.", ("kind",), ages)
        family = SummaryMetricFamily("finetuned_job_seconds", "Jobs from claim to end.", labels=("kind", "status"))
        for one in self.durations:
            family.add_metric((one.kind, one.status), one.count, one.seconds)
        yield family

    def _of_trainings(self) -> Iterator[Metric]:
        for name, text, key in _TRAINING:
            found = [((one.project, one.job), one.progress.get(key)) for one in self.trainings]
            yield _gauge(
                name, text, ("project", "job"), [(labels, value) for labels, value in found if value is not None]
            )

    def _of_workers(self) -> Iterator[Metric]:
        for name, text, histogram in _HISTOGRAMS:
            yield _histogram(name, text, {worker: histogram(one) for worker, one in self.workers.items()})
        for name, text, count in _COUNTS:
            samples = [((worker,), count(one)) for worker, one in self.workers.items()]
            yield _counter(name, text, ("worker",), samples)
        for name, text, label, counts in _LABELLED_COUNTS:
            pairs = [((worker, key), n) for worker, one in self.workers.items() for key, n in counts(one).items()]
            yield _counter(name, text, ("worker", label), pairs)

    def _of_engines(self) -> Iterator[Metric]:
        engines = [
            ((worker, model), engine)
            for worker, measures in self.workers.items()
            for model, engine in measures.engines.items()
        ]
        for family, name, text, value in _ENGINE:
            yield family(name, text, ("worker", "model"), [(labels, value(engine)) for labels, engine in engines])

    def _of_answers(self) -> Iterator[Metric]:
        for name, text, value in _QUALITY:
            found = [(one.labels, value(one.summary)) for one in self.qualities]
            yield _gauge(name, f"{text} Over the latest 1000 answers.", _QUALITY_LABELS, _known(found))


Samples = Iterable[tuple[tuple[str, ...], float]]


def _gauge(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"finetuned_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(f"finetuned_{name}", text, labels=labels)  # the library adds `_total`
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _histogram(name: str, text: str, by_worker: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(f"finetuned_{name}", text, labels=("worker",))
    for worker, histogram in by_worker.items():
        bounds = [*map(str, histogram.bounds), "+Inf"]
        cumulated = zip(bounds, map(float, accumulate(histogram.counts)), strict=False)
        family.add_metric((worker,), list(cumulated), histogram.total)
    return family


def _known(found: Iterable[tuple[tuple[str, ...], float | None]]) -> Samples:
    return [(labels, value) for labels, value in found if value is not None]


def _by_key(counts: Mapping[str, int]) -> Samples:
    return [((key,), count) for key, count in sorted(counts.items())]


# Of the running trainings; the last is the key in a job's progress.
_TRAINING = (
    ("training_step", "Optimizer steps done.", "step"),
    ("training_steps", "Optimizer steps in all.", "total_steps"),
    ("training_loss", "Loss of the last step, mean over supervised tokens.", "train_loss"),
    ("training_validation_loss", "Held-out loss of the last evaluation.", "validation_loss"),
    ("training_learning_rate", "Learning rate of the last step.", "learning_rate"),
    ("training_tokens_per_second", "Tokens that are no padding.", "tokens_per_second"),
    ("training_memory_bytes", "Memory in use, of the GPU where there is one.", "memory_bytes"),
    ("training_peak_memory_bytes", "Most memory so far.", "peak_memory_bytes"),
    ("training_seconds_left", "Estimate from the steps so far.", "seconds_left"),
)
_HISTOGRAMS: tuple[tuple[str, str, Callable[[WorkerMeasures], Histogram]], ...] = (
    ("queue_seconds", "From the question to the first step for it.", lambda one: one.queue_seconds),
    ("time_to_first_token_seconds", "From the question to its first token.", lambda one: one.first_token_seconds),
    ("time_per_output_token_seconds", "An answer's mean time between tokens.", lambda one: one.token_seconds),
)
_COUNTS: tuple[tuple[str, str, Callable[[WorkerMeasures], float]], ...] = (
    ("fallback_answers", "Answers of a base model in place of an adapter.", lambda one: one.num_fallbacks),
    ("aborted_questions", "Questions whose client went away.", lambda one: one.num_aborts),
    ("unrecorded_answers", "Answers that the database could not take.", lambda one: one.num_unrecorded),
    ("prompt_tokens", "Tokens of the questions that were answered.", lambda one: one.prompt_tokens),
    ("generated_tokens", "Tokens of the answers.", lambda one: one.completion_tokens),
)
_LABELLED_COUNTS: tuple[tuple[str, str, str, Callable[[WorkerMeasures], Mapping[str, int]]], ...] = (
    (
        "answers",
        "Answers by how they ended: stop or length (cut).",
        "finish_reason",
        lambda one: one.num_answers,
    ),
    ("refused_questions", "Questions without an answer, by error.", "code", lambda one: one.num_refusals),
)
_ENGINE: tuple[tuple[Callable[..., Metric], str, str, Callable[[EngineMeasures], float]], ...] = (
    (_gauge, "running_sequences", "Sequences in the batch.", lambda one: one.num_running),
    (_gauge, "waiting_sequences", "Sequences that wait for a slot.", lambda one: one.num_waiting),
    (_gauge, "cache_used_tokens", "Tokens held by the KV cache.", lambda one: one.cache_used_tokens),
    (_gauge, "cache_capacity_tokens", "Tokens that the KV cache can hold.", lambda one: one.cache_capacity_tokens),
    (_counter, "engine_steps", "Forward passes.", lambda one: one.num_steps),
    (_counter, "engine_tokens", "Tokens computed; per step, the batch size.", lambda one: one.num_tokens),
    (_counter, "prefix_tokens_reused", "Prompt tokens taken from the cache.", lambda one: one.num_prefix_tokens_reused),
    (_counter, "adapter_loads", "Adapters loaded into the engine.", lambda one: one.num_adapter_loads),
    (_counter, "aborted_sequences", "Sequences given up before their end.", lambda one: one.num_aborts),
)
_QUALITY: tuple[tuple[str, str, Callable[[AnswersSummary], float | None]], ...] = (
    ("latest_answers", "Number of answers.", lambda one: one.num_answers),
    ("latest_mean_logprob", "Mean log-probability of the chosen tokens.", lambda one: one.mean_logprob),
    ("latest_repetition_ratio", "Share of repeated 3-grams.", lambda one: one.repetition),
    ("latest_completion_tokens", "Mean length in tokens.", lambda one: one.completion_tokens),
    ("latest_truncated_ratio", "Share of answers that were cut at their most tokens.", lambda one: one.truncated),
    ("latest_fallback_ratio", "Share of answers in place of an adapter.", lambda one: one.fallback),
    ("latest_thumbs_up", "Thumbs up.", lambda one: one.thumbs_up),
    ("latest_thumbs_down", "Thumbs down.", lambda one: one.thumbs_down),
)
