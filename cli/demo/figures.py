"""What the demo measured, and what it must reach."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cli.demo.scoring import Score

MAX_BASE_SHARE = 0.10
MIN_TUNED_SHARE = 0.80
MIN_LOSS_REDUCTION = 0.20


@dataclass(frozen=True)
class Figures:
    """`seen`: questions whose answers were in the training data. `first_answer_seconds` is an upper bound: it counts
    from the last moment at which the training was known not to have ended, to the new version's first answer."""

    base_seen: Score
    base_unseen: Score
    tuned_seen: Score
    tuned_unseen: Score
    base_loss: float
    tuned_loss: float
    ready_seconds: float
    training_seconds: float
    first_answer_seconds: float
    total_seconds: float

    @property
    def loss_reduction(self) -> float:
        """By which share the held-out loss fell."""
        return 1.0 - self.tuned_loss / self.base_loss

    def as_json(self) -> dict[str, Any]:
        shares = {
            f"{name}_share": getattr(self, name).share
            for name in ("base_seen", "base_unseen", "tuned_seen", "tuned_unseen")
        }
        return {**asdict(self), **shares, "loss_reduction": self.loss_reduction}


def shortcomings(figures: Figures) -> list[str]:
    """What the figures fall short of, in words; empty when the demo shows what it is to show."""
    checks = {
        f"the base model must not know the answers, but {_percent(figures.base_seen.share)} of its were right "
        f"(at most {_percent(MAX_BASE_SHARE)})": figures.base_seen.share <= MAX_BASE_SHARE,
        f"only {_percent(figures.tuned_seen.share)} of the tuned model's answers were right "
        f"(at least {_percent(MIN_TUNED_SHARE)})": figures.tuned_seen.share >= MIN_TUNED_SHARE,
        f"the held-out loss fell by only {_percent(figures.loss_reduction)} "
        f"(at least {_percent(MIN_LOSS_REDUCTION)})": figures.loss_reduction >= MIN_LOSS_REDUCTION,
    }
    return [sentence for sentence, is_reached in checks.items() if not is_reached]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
