"""The trials of a sweep that have not ended, and what is said of one that has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from optuna.trial import FrozenTrial, Trial

from shared.models import JobEvent
from worker.sweeps.rungs import rung_of

TrialState = Literal["complete", "pruned", "failed", "cancelled"]
JOB_ID, CANCELLED = "job_id", "cancelled"  # a trial's attributes in the study


@dataclass(frozen=True)
class Best:
    """The complete trial with the lowest held-out loss, which is in nats a token."""

    number: int
    job_id: str
    value: float
    params: dict[str, Any]

    @classmethod
    def of(cls, trials: list[FrozenTrial], params_of: Any) -> Best | None:
        """Of complete trials; of equals the first."""
        if not trials:
            return None
        best = min(trials, key=lambda trial: (trial.value, trial.number))
        return cls(best.number, best.user_attrs[JOB_ID], float(best.value or 0.0), params_of(best.params))


@dataclass
class OpenTrial:
    """A trial whose training has not ended, as far as is known, and the held-out losses that it has reported."""

    trial: Trial
    job_id: str
    values: dict[str, Any]
    num_epochs: int
    known_event: int = 0
    total_steps: int = 0
    steps: list[tuple[int, float]] = field(default_factory=list)

    @property
    def number(self) -> int:
        return self.trial.number

    def hear(self, event: JobEvent) -> None:
        """Takes down what the training reports; an attempt that goes on from a checkpoint repeats what is known."""
        self.known_event = event.id
        self.total_steps = event.data.get("total_steps") or self.total_steps
        step, loss = event.data.get("step"), event.data.get("valid_loss")
        if step is not None and loss is not None and (not self.steps or step > self.steps[-1][0]):
            self.steps.append((step, loss))

    def is_hopeless(self) -> bool:
        """Tells the study the latest loss, once a rung; whether the pruner then gives the trial up."""
        if not self.steps or not self.total_steps:
            return False
        step, loss = self.steps[-1]
        rung = rung_of(step, self.total_steps, self.num_epochs)
        told = self.trial.study.get_trials(deepcopy=False)[self.number].intermediate_values
        if rung == 0 or rung <= max(told, default=0):
            return False
        self.trial.report(loss, rung)
        return self.trial.should_prune()


@dataclass(frozen=True)
class Ending:
    """How a trial ended. `value` is its held-out loss, of a pruned one the last; `error` says why there is none."""

    number: int
    state: TrialState
    params: dict[str, Any]
    job_id: str | None = None
    value: float | None = None
    steps: list[tuple[int, float]] = field(default_factory=list)
    seconds: float | None = None
    error: str | None = None

    def data(self, best: Best | None) -> dict[str, Any]:
        """What its event carries: all that is ever shown of the trial."""
        return {
            "trial": self.number,
            "state": self.state,
            "params": self.params,
            "job_id": self.job_id,
            "value": self.value,
            "steps": [list(one) for one in self.steps],
            "seconds": self.seconds,
            "error": self.error,
            "best": None if best is None else {"number": best.number, "value": best.value},
        }

    def message(self, best: Best | None) -> str:
        """One sentence for those who watch."""
        match self.state:
            case "complete":
                said = f"Trial {self.number}: held-out loss {self.value:.4f}"
            case "pruned":
                said = f"Trial {self.number} was pruned after step {self.steps[-1][0]}: held-out loss {self.value:.4f}"
            case "cancelled":
                said = f"Trial {self.number} was cancelled"
            case _:
                said = f"Trial {self.number} failed: {(self.error or '').removesuffix('.')}"
        if best is None:
            return said
        if best.number == self.number:
            return f"{said}, the best so far"
        return f"{said}; best so far {best.value:.4f} (trial {best.number})"
