"""The gate's measurements: the new version, its base model and the live version on the same held-out examples."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shared.claimed_job import ClaimedJob
from shared.errors import AdapterBroken, NotFound, OutOfMemory
from shared.models import AdapterVersion
from shared.promotion_policy import GateDecision, GateEvidence, PromotionMode, PromotionPolicy, Rival, decide
from shared.repositories.adapters import AdapterRepository
from shared.storage import Storage, make_folder
from worker.adapter_files import check_files
from worker.base_models.formats import Learnable, PreferencePair, sequences
from worker.finetuning.batches import fit, num_targets
from worker.finetuning.checkpoints import writing
from worker.finetuning.fitting import Trained
from worker.finetuning.held_out import ExampleScore, example_scores, pair_scores
from worker.finetuning.loop import memory_errors
from worker.finetuning.lora import beside
from worker.finetuning.reports import EvaluationProgress, Report

MAX_EXAMPLES = 1000  # more tell little more, and take as long as an epoch

Losses = tuple[float, ...]


class GateStopped(Exception):
    """`should_stop()` turned true while it measured; nothing has changed."""


@dataclass(frozen=True)
class Ruling:
    """A decision, and what it rests on: it holds as long as both stay so. `live_id` None: no version was live."""

    decision: GateDecision
    policy: PromotionPolicy
    live_id: str | None


@dataclass(frozen=True)
class Candidate:
    """Whose version it is that comes to the gate: `asked` is the mode that its training asked for, `default` that of
    the settings."""

    adapter: str
    asked: PromotionMode | None
    default: PromotionMode


class Gate:
    """One training's. What was measured once is kept: to rule again costs the scores of another live version."""

    def __init__(
        self,
        job: ClaimedJob,
        storage: Storage,
        candidate: Candidate,
        trained: Trained,
        held_out: Sequence[Learnable],
        *,
        report: Report = lambda metrics: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._job = job
        self._storage = storage
        self.candidate = candidate
        self._trained = trained
        self._items = chosen(held_out, trained)
        self._report = report
        self._should_stop = should_stop
        self._own: list[ExampleScore] | None = None
        self._base: Losses | None = None
        self._live: dict[str, Losses | str] = {}  # losses by the version's id, or why there are none

    def ruling(self) -> Ruling:
        """By the adapter's policy, against the version that is live by now. Raises `GateStopped`."""
        policy, live = self._circumstances()
        is_measured = policy.mode == "if_better"
        evidence = self._evidence(policy.against, live) if is_measured else None
        return Ruling(decide(policy, evidence), policy, None if live is None else live.id)

    def evidence(self) -> GateEvidence:
        """All that a decision may rest on, for one that is taken later. Raises `GateStopped`."""
        _, live = self._circumstances()
        return self._evidence(("base", "live"), live)

    def go_on(self) -> None:
        """From now on it is not stopped: what it rules on is entered."""
        self._should_stop = lambda: False

    def _circumstances(self) -> tuple[PromotionPolicy, AdapterVersion | None]:
        project, candidate = self._job.claim.project_id, self.candidate
        live: AdapterVersion | None = None
        with self._job.database.read() as session:
            adapters = AdapterRepository(session)
            policy = adapters.policy(project, candidate.adapter, candidate.default, asked=candidate.asked)
            with suppress(NotFound):
                live = adapters.resolve(project, candidate.adapter, None)
        return policy, live

    def _evidence(self, against: Sequence[Rival], live: AdapterVersion | None) -> GateEvidence:
        number = None if live is None else live.number
        if not self._items:
            return GateEvidence(live_version=number)
        if self._own is None:
            self._own = self._scores()
        if "base" in against and self._base is None:
            self._base = self._base_losses()
        found = self._live_losses(live) if live is not None and "live" in against else None
        return GateEvidence(
            unit="pair" if self._beta is not None else "token",
            num_tokens=tuple(one.num_tokens for one in self._own),
            own=_losses(self._own),
            base=self._base,
            live=None if isinstance(found, str) else found,
            live_version=number,
            notes=(found,) if isinstance(found, str) else (),
        )

    @property
    def _beta(self) -> float | None:
        method = self._trained.config.method
        return method.beta if method.type == "dpo" else None

    def _scores(self) -> list[ExampleScore]:
        """Under the adapter that is active."""
        trained, beta = self._trained, self._beta
        with memory_errors():
            if beta is None:
                return example_scores(trained.model, self._items, split=trained.split, before_batch=self._before_batch)
            pairs = [item for item in self._items if isinstance(item, PreferencePair)]
            return pair_scores(trained.model, pairs, beta, split=trained.split, before_batch=self._before_batch)

    def _base_losses(self) -> Losses:
        if self._beta is not None:
            return (math.log(2),) * len(self._items)  # it differs in nothing from itself
        with self._trained.model.disable_adapter():
            return _losses(self._scores())

    def _live_losses(self, live: AdapterVersion) -> Losses | str:
        if live.id not in self._live:
            self._live[live.id] = self._compared(live)
        return self._live[live.id]

    def _compared(self, live: AdapterVersion) -> Losses | str:
        """A version that cannot be compared costs the comparison and not the training."""
        name, marker = f"Version {live.number}, which is live, was not compared", self._marker
        base_model = self._trained.config.model_name
        if live.base_model != base_model:
            return f"{name}: it belongs to another base model, '{live.base_model}'."
        if live.broken_reason is not None:
            return f"{name}: {live.broken_reason}"
        if marker.was_fatal(live.id):
            return f"{name}: memory ran out when an earlier attempt loaded it."
        try:
            folder = self._storage.version(live.id)
            check_files(folder, live.id)
            marker.put(live.id)
            with memory_errors(), beside(self._trained.model, folder):
                losses = _losses(self._scores())
        except AdapterBroken as error:
            return f"{name}: {error.detail}"
        except OutOfMemory:
            return f"{name}: there was not enough memory to load it too."
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:  # what PEFT raises of foreign files
            return f"{name}: it could not be loaded ({type(error).__name__})."
        finally:
            marker.remove()
        return losses if all(map(math.isfinite, losses)) else f"{name}: its losses are not finite numbers."

    @property
    def _marker(self) -> _Marker:
        claim = self._job.claim
        return _Marker(self._storage.checkpoints(claim.job_id) / "comparing.json", claim.num_memory_deaths)

    def _before_batch(self, num_done: int) -> None:
        if self._should_stop():
            raise GateStopped
        self._report(EvaluationProgress(self._trained.outcome.num_steps, num_done, len(self._items)))


class _Marker:
    """Lies beside the checkpoints while the live version is loaded, so that an attempt that the kernel kills for it is
    not followed by others that end the same way."""

    def __init__(self, path: Path, num_deaths: int) -> None:
        self._path = path
        self._num_deaths = num_deaths

    def put(self, version_id: str) -> None:
        with writing():
            make_folder(self._path.parent)
            self._path.write_text(json.dumps({"version_id": version_id, "num_deaths": self._num_deaths}))

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def was_fatal(self, version_id: str) -> bool:
        """Whether an attempt that loaded this version was killed for lack of memory meanwhile."""
        try:
            kept = json.loads(self._path.read_text())
            return bool(kept["version_id"] == version_id and kept["num_deaths"] < self._num_deaths)
        except (OSError, ValueError, KeyError, TypeError):
            return False


def chosen(held_out: Sequence[Learnable], trained: Trained) -> list[Learnable]:
    """The held-out items that are compared on, at most `MAX_EXAMPLES`: always the same ones of the same dataset."""
    config = trained.model.config
    items = [
        item
        for item in fit(held_out, trained.config.max_length, config)
        if all(num_targets(one, is_encoder_decoder=config.is_encoder_decoder) for one in sequences(item))
        and not (isinstance(item, PreferencePair) and item.chosen.labels == item.rejected.labels)
    ]
    if len(items) <= MAX_EXAMPLES:
        return items
    numbers = random.Random("gate").sample(range(len(items)), MAX_EXAMPLES)
    return [items[number] for number in sorted(numbers)]


def _losses(scores: Sequence[ExampleScore]) -> Losses:
    return tuple(one.loss_sum / one.num_tokens for one in scores)
