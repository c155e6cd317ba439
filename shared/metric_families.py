"""The names and shapes of what is measured in more than one process: tables, so that a new measure is a new line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from shared.measures import EngineMeasures, Histogram, WorkerMeasures

Samples = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True)
class RunningJob:
    """A job at this moment: its project, its id, and what it reports."""

    project: str
    job_id: str
    progress: Mapping[str, Any]


def families_of_trainings(trainings: Sequence[RunningJob]) -> Iterator[Metric]:
    """What running trainings report."""
    return _of_progress(_TRAINING, trainings)


def families_of_batches(batches: Sequence[RunningJob]) -> Iterator[Metric]:
    """How far running batches are."""
    return _of_progress(_BATCH, batches)


def families_of_setups(setups: Sequence[RunningJob]) -> Iterator[Metric]:
    """How far running setups are."""
    return _of_progress(_SETUP, setups)


def families_of_sweeps(sweeps: Sequence[RunningJob]) -> Iterator[Metric]:
    """How far running sweeps are, and the best that they have found."""
    yield from _of_progress(_SWEEP, sweeps)
    by_state = [
        ((one.project, one.job_id, state), one.progress[state])
        for one in sweeps
        for state in _TRIAL_STATES
        if state in one.progress
    ]
    yield gauge("sweep_trials", "Trials by state.", ("project", "job_id", "state"), by_state)


def families_of_inference(workers: Mapping[str, WorkerMeasures]) -> Iterator[Metric]:
    """What inference workers, by name, have measured since they were started."""
    for name, text, histogram_of in _HISTOGRAMS:
        yield histogram(name, text, ("worker",), [((worker,), histogram_of(one)) for worker, one in workers.items()])
    for name, text, count in _COUNTS:
        yield counter(name, text, ("worker",), [((worker,), count(one)) for worker, one in workers.items()])
    for name, text, label, counts in _LABELLED_COUNTS:
        pairs = [((worker, key), n) for worker, one in workers.items() for key, n in counts(one).items()]
        yield counter(name, text, ("worker", label), pairs)
    engines = [
        ((worker, model), engine) for worker, measures in workers.items() for model, engine in measures.engines.items()
    ]
    for family, name, text, value in _ENGINE:
        yield family(name, text, ("worker", "model"), [(labels, value(engine)) for labels, engine in engines])
    sizes = [(labels, _batch_sizes(engine)) for labels, engine in engines]
    yield histogram("batch_size", "Sequences in a step.", ("worker", "model"), sizes)


def gauge(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"finetuned_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def counter(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(f"finetuned_{name}", text, labels=labels)  # the library adds `_total`
    for values, value in samples:
        family.add_metric(values, value)
    return family


def histogram(
    name: str, text: str, labels: Sequence[str], samples: Iterable[tuple[tuple[str, ...], Histogram]]
) -> Metric:
    family = HistogramMetricFamily(f"finetuned_{name}", text, labels=labels)
    for values, one in samples:
        bounds = [*map(str, one.bounds), "+Inf"]
        cumulated = zip(bounds, map(float, accumulate(one.counts)), strict=False)
        family.add_metric(values, list(cumulated), one.total)
    return family


def _of_progress(table: Sequence[tuple[str, str, str]], jobs: Sequence[RunningJob]) -> Iterator[Metric]:
    for name, text, key in table:
        found = [((one.project, one.job_id), one.progress.get(key)) for one in jobs]
        yield gauge(
            name, text, ("project", "job_id"), [(labels, value) for labels, value in found if value is not None]
        )


def _batch_sizes(engine: EngineMeasures) -> Histogram:
    """Steps by the power of two that their batch does not exceed."""
    by_size = engine.num_by_batch_size
    bounds = [2.0**power for power in range(max(len(by_size) - 2, 0).bit_length() + 1)]
    counts = [sum(by_size[int(low) + 1 : int(high) + 1]) for low, high in zip([-1, *bounds], bounds, strict=False)]
    return Histogram(bounds=tuple(bounds), counts=(*counts, 0), total=sum(size * n for size, n in enumerate(by_size)))


# The last is the key in a job's progress.
_TRAINING = (
    ("training_step", "Optimizer steps done.", "step"),
    ("training_steps", "Optimizer steps in all.", "total_steps"),
    ("training_loss", "Loss of the last step, mean over supervised tokens.", "train_loss"),
    ("training_validation_loss", "Held-out loss of the last evaluation.", "validation_loss"),
    ("training_learning_rate", "Learning rate of the last step.", "learning_rate"),
    ("training_gradient_norm", "Norm of the last step's gradient before it was clipped.", "gradient_norm"),
    ("training_tokens_per_second", "Tokens that are no padding.", "tokens_per_second"),
    ("training_memory_bytes", "Memory in use, of the GPU where there is one.", "memory_bytes"),
    ("training_peak_memory_bytes", "Most memory so far.", "peak_memory_bytes"),
    ("training_seconds_left", "Estimate from the steps so far.", "seconds_left"),
)
_BATCH = (
    ("batch_lines_done", "Lines that have their answer or their error.", "step"),
    ("batch_lines", "Lines in all.", "total_steps"),
    ("batch_lines_failed", "Lines that have an error.", "failed"),
    ("batch_tokens_per_second", "Tokens of answers.", "tokens_per_second"),
)
_SETUP = (
    ("setup_documents_done", "Documents that have been read.", "documents_done"),
    ("setup_documents", "Documents in all.", "documents"),
)
_SWEEP = (
    ("sweep_wanted_trials", "Trials that are tried in all, unless the time ends before.", "total_steps"),
    ("sweep_best_loss", "Lowest held-out loss of a complete trial, mean over supervised tokens.", "validation_loss"),
    ("sweep_seconds_left", "Estimate from the trials so far.", "seconds_left"),
)
_TRIAL_STATES = ("complete", "pruned", "failed", "cancelled", "running")  # keys in a sweep's progress
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
    (gauge, "running_sequences", "Sequences in the batch.", lambda one: one.num_running),
    (gauge, "waiting_sequences", "Sequences that wait for a slot.", lambda one: one.num_waiting),
    (gauge, "cache_slots", "Sequences that the KV cache has room for.", lambda one: one.num_slots),
    (gauge, "cache_used_tokens", "Tokens held by the KV cache.", lambda one: one.cache_used_tokens),
    (gauge, "cache_capacity_tokens", "Tokens that the KV cache can hold.", lambda one: one.cache_capacity_tokens),
    (gauge, "loaded_adapters", "Adapters that are ready.", lambda one: one.num_loaded_adapters),
    (counter, "engine_steps", "Forward passes.", lambda one: one.num_steps),
    (counter, "engine_tokens", "Tokens computed; per step, the batch size.", lambda one: one.num_tokens),
    (counter, "prefix_tokens_reused", "Prompt tokens taken from the cache.", lambda one: one.num_prefix_tokens_reused),
    (counter, "adapter_loads", "Adapters loaded into the engine.", lambda one: one.num_adapter_loads),
    (counter, "adapter_load_seconds", "Time to read and attach them.", lambda one: one.adapter_load_seconds),
    (counter, "adapter_evictions", "Adapters that made room for others.", lambda one: one.num_adapter_evictions),
    (counter, "aborted_sequences", "Sequences given up before their end.", lambda one: one.num_aborts),
)
