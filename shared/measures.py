"""What an inference worker measures in service: its heartbeat carries it to GET /metrics, and its own port shows it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0)


class _Measure(BaseModel):
    # Old and new workers may run beside each other: what the reader does not know, it passes over.
    model_config = ConfigDict(frozen=True, extra="ignore", from_attributes=True, protected_namespaces=())


class Histogram(_Measure):
    """How often a value was at most each of `bounds` and above the one before; the last count is of those above all."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class EngineMeasures(_Measure):
    """One engine's counts since it was made, and what it holds at the moment.

    `num_tokens` are those that came out of the model: over `num_steps` it is the mean batch. `num_by_batch_size` counts
    the steps by their batch, from that of none.
    """

    num_running: int = 0
    num_waiting: int = 0
    num_steps: int = 0
    num_tokens: int = 0
    cache_used_tokens: int = 0
    cache_capacity_tokens: int = 0
    num_prefix_tokens_reused: int = 0
    num_adapter_loads: int = 0
    num_aborts: int = 0
    num_slots: int = 0
    num_loaded_adapters: int = 0
    num_adapter_evictions: int = 0
    adapter_load_seconds: float = 0.0
    num_by_batch_size: tuple[int, ...] = ()


class WorkerMeasures(_Measure):
    """One worker's counts since it was started."""

    queue_seconds: Histogram
    first_token_seconds: Histogram
    token_seconds: Histogram
    num_answers: dict[str, int]  # by finish reason
    num_fallbacks: int
    num_refusals: dict[str, int]  # by error code
    num_aborts: int
    num_unrecorded: int
    prompt_tokens: int
    completion_tokens: int
    engines: dict[str, EngineMeasures] = {}  # by base model


def measures_in(details: dict[str, Any]) -> WorkerMeasures | None:
    """What a heartbeat's details carry; None for a worker of another version, or one that measures nothing."""
    try:
        return WorkerMeasures.model_validate(details.get("measures"))
    except ValidationError:
        return None
