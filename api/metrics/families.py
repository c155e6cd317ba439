"""The metrics' names and shapes: one table of what is read where, so that a new measure is a new line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from api.answers.summary import AnswersSummary
from api.quality.reading import VersionQuality
from shared.answer_sums import AnswerSums
from shared.measures import WorkerMeasures
from shared.metric_families import (
    RunningJob,
    Samples,
    families_of_inference,
    families_of_sweeps,
    families_of_trainings,
    gauge,
)
from shared.repositories.job_statistics import Durations, Queue

_QUALITY_LABELS = ("project", "model", "adapter", "version")
_VERSION_LABELS = ("project", "adapter", "version")  # of the 100 versions that answer most


@dataclass(frozen=True)
class LatestQuality:
    """The latest answers of one version, or of a base model: its labels, in the order of the table, and their sum."""

    labels: tuple[str, str, str, str]
    summary: AnswersSummary


@dataclass(frozen=True)
class Readings(Collector):
    """What was read at one moment; `collect` renders it."""

    workers: Mapping[str, WorkerMeasures]
    num_workers: Mapping[str, int]
    num_jobs: Mapping[str, int]
    queues: Sequence[Queue]
    durations: Sequence[Durations]
    trainings: Sequence[RunningJob]
    sweeps: Sequence[RunningJob]
    num_waiting: int | None
    qualities: Sequence[LatestQuality]
    versions: Sequence[VersionQuality]

    def collect(self) -> Iterator[Metric]:
        yield gauge("workers", "Workers whose heartbeat is fresh.", ("kind",), _by_key(self.num_workers))
        yield gauge("jobs", "Jobs by status.", ("status",), _by_key(self.num_jobs))
        if self.num_waiting is not None:
            yield gauge("waiting_questions", "Questions that no worker has taken.", (), [((), self.num_waiting)])
        yield from self._of_jobs()
        yield from families_of_trainings(self.trainings)
        yield from families_of_sweeps(self.sweeps)
        yield from families_of_inference(self.workers)
        yield from self._of_answers()
        yield from self._of_versions()

    def _of_jobs(self) -> Iterator[Metric]:
        depths = [((one.kind,), one.num_jobs) for one in self.queues]
        ages = [((one.kind,), one.oldest_seconds) for one in self.queues]
        yield gauge("queued_jobs", "Jobs that wait for a worker.", ("kind",), depths)
        yield gauge("queue_age_seconds", "How long the first of them has waited.", ("kind",), ages)
        family = SummaryMetricFamily("finetuned_job_seconds", "Jobs from claim to end.", labels=("kind", "status"))
        for one in self.durations:
            family.add_metric((one.kind, one.status), one.count, one.seconds)
        yield family

    def _of_answers(self) -> Iterator[Metric]:
        for name, text, value in _QUALITY:
            found = [(one.labels, value(one.summary)) for one in self.qualities]
            yield gauge(name, f"{text} Over the latest 1000 answers.", _QUALITY_LABELS, _known(found))

    def _of_versions(self) -> Iterator[Metric]:
        for name, text, value in _OF_VERSIONS:
            found = [(_labels_of(one), value(one.sums)) for one in self.versions]
            yield gauge(name, f"{text} Over the last 24 hours.", _VERSION_LABELS, _known(found))
        compared = [
            ((*_labels_of(one), compared.signal.name), float(compared.is_drift))
            for one in self.versions
            for compared in one.compared
        ]
        text = "1 where a signal of quality is worse than in the version's first days, 0 where it is not."
        yield gauge("version_drift", text, (*_VERSION_LABELS, "signal"), compared)


def _labels_of(one: VersionQuality) -> tuple[str, ...]:
    return one.version.project_id, one.version.adapter, str(one.version.version)


def _thumbs_down(sums: AnswerSums) -> float | None:
    thumbs = sums.thumbs_up + sums.thumbs_down
    return sums.thumbs_down / thumbs if thumbs else None


def _known(found: Iterable[tuple[tuple[str, ...], float | None]]) -> Samples:
    return [(labels, value) for labels, value in found if value is not None]


def _by_key(counts: Mapping[str, int]) -> Samples:
    return [((key,), count) for key, count in sorted(counts.items())]


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

_OF_VERSIONS: tuple[tuple[str, str, Callable[[AnswerSums], float | None]], ...] = (
    ("version_answers", "Number of a version's answers.", lambda one: one.num_answers),
    ("version_mean_logprob", "Mean log-probability of its tokens.", lambda one: one.mean_logprob / one.num_answers),
    ("version_repetition_ratio", "Share of repeated 3-grams.", lambda one: one.repetition / one.num_answers),
    ("version_truncated_ratio", "Share of cut answers.", lambda one: one.num_truncated / one.num_answers),
    ("version_thumbs_down_ratio", "Share of thumbs down among the thumbs.", _thumbs_down),
)
