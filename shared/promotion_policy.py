"""Which new versions of an adapter go live: the policy, what it is decided on, and the rule by which it decides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import InvalidRequest
from shared.intervals import ENOUGH_EXAMPLES, Interval, difference

EVIDENCE = "gate.json"  # in a training's evaluation folder, where its trial's version is decided on later
PARAMETER = "promotion"  # of a training job: the mode for its version alone

PromotionMode = Literal["manual", "always", "if_better"]
Rival = Literal["base", "live"]
Unit = Literal["token", "pair"]


class PromotionPolicy(BaseModel):
    """`manual`: only who promotes by hand moves `live`. `always`: every new version. `if_better`: one whose held-out
    loss is lower than that of each of `against`, by at least `min_improvement` at the nearer end of the interval.

    Where fewer than `min_examples` are held out, an interval says little, and the losses themselves decide, which is
    said. Where nothing is held out, or there is no rival, nothing speaks against the version and it goes live.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mode: PromotionMode = "if_better"
    min_improvement: float = Field(0.0, ge=0.0, le=100.0, description="Nats a token; with DPO, nats a pair.")
    min_examples: int = Field(ENOUGH_EXAMPLES, ge=1, le=1_000_000)
    against: tuple[Rival, ...] = ("base", "live")

    @classmethod
    def of(cls, asked: PromotionMode | None, stored: dict[str, Any] | None, default: PromotionMode) -> PromotionPolicy:
        """The one that holds: the mode that a training asked for, else the adapter's own, else the settings'. A mode
        that was asked for keeps the adapter's thresholds."""
        policy = cls(mode=default) if stored is None else cls.model_validate(stored)
        return policy if asked is None else policy.model_copy(update={"mode": asked})


def mode_in(parameters: dict[str, Any]) -> PromotionMode | None:
    """The mode that a training job asks for, None where it says nothing; raises `ValidationError`."""
    asked = parameters.get(PARAMETER)
    return None if asked is None else PromotionPolicy(mode=asked).mode


class GateEvidence(BaseModel):
    """What the held-out examples say of a new version and its rivals: each example's loss in nats a token (with DPO: a
    pair), and how many tokens it has. `base` and `live` are None where they were not compared; `notes` say why.

    `live_version` is the number that was live when this was measured, compared or not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    unit: Unit = "token"
    num_tokens: tuple[int, ...] = ()
    own: tuple[float, ...] = ()
    base: tuple[float, ...] | None = None
    live: tuple[float, ...] | None = None
    live_version: int | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: Path) -> GateEvidence:
        """What a trial's training left in `storage.evaluation(job_id)`; raises `InvalidRequest` where it is missing or
        damaged."""
        try:
            return cls.model_validate_json((folder / EVIDENCE).read_bytes())
        except (OSError, ValidationError) as error:
            raise InvalidRequest("What the training measured is missing; train again.") from error


class Comparison(BaseModel):
    """The new version beside a rival on the held-out examples: losses in nats a token, their difference (negative: the
    new one's is lower), and whether it is lower by enough."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rival: Rival
    version: int | None
    rival_loss: float
    loss: float
    difference: Interval
    is_better: bool

    @property
    def words(self) -> str:
        """The rival, its loss, and how far from it the new version's is."""
        name = "the base model's" if self.rival == "base" else f"version {self.version}'s"
        low, high = self.difference.low, self.difference.high
        interval = "" if low is None or high is None else f", 95 % interval {low:+.4f} to {high:+.4f}"
        return f"{name} {self.rival_loss:.4f} ({self.difference.value:+.4f}{interval})"


class GateDecision(BaseModel):
    """What the gate decided about a new version, and the sentence that says why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    is_promoted: bool
    reason: str
    policy: PromotionPolicy
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As the history keeps it."""
        return self.model_dump(mode="json")


def decide(policy: PromotionPolicy, evidence: GateEvidence | None = None) -> GateDecision:
    """The rule in `PromotionPolicy`. Only `if_better` looks at the evidence, and cannot do without it."""
    if policy.mode == "manual":
        return GateDecision(is_promoted=False, reason="By the policy, versions are promoted by hand.", policy=policy)
    if policy.mode == "always":
        return GateDecision(is_promoted=True, reason="By the policy, every new version goes live.", policy=policy)
    if evidence is None:
        raise ValueError("if_better decides on evidence")
    compared = [_compared(policy, evidence, rival) for rival in dict.fromkeys(policy.against)]
    comparisons = tuple(one for one in compared if one is not None)
    return GateDecision(
        is_promoted=all(one.is_better for one in comparisons),
        reason=_reason(policy, evidence, comparisons),
        policy=policy,
        comparisons=comparisons,
        notes=evidence.notes,
    )


def _compared(policy: PromotionPolicy, evidence: GateEvidence, rival: Rival) -> Comparison | None:
    losses = evidence.base if rival == "base" else evidence.live
    if losses is None or not evidence.own:
        return None
    weights = evidence.num_tokens
    interval = difference(losses, evidence.own, weights)
    nearer = interval.high if len(weights) >= policy.min_examples and interval.high is not None else interval.value
    return Comparison(
        rival=rival,
        version=evidence.live_version if rival == "live" else None,
        rival_loss=_mean(losses, weights),
        loss=_mean(evidence.own, weights),
        difference=interval,
        is_better=nearer < 0.0 and -nearer >= policy.min_improvement,
    )


def _reason(policy: PromotionPolicy, evidence: GateEvidence, comparisons: Sequence[Comparison]) -> str:
    if not evidence.own:
        return "Nothing is held out, so nothing speaks against it."
    count = len(evidence.own)
    if not comparisons:
        return "There is nothing to compare it with, so nothing speaks against it."
    worse = [one for one in comparisons if not one.is_better]
    told, verdict = (worse, "not lower, or not by enough, than") if worse else (comparisons, "lower than")
    items = "example" if evidence.unit == "token" else "pair"
    few = "" if count >= policy.min_examples else f"; with fewer than {policy.min_examples} the losses alone decide"
    words = " and ".join(one.words for one in told)
    return f"Held-out loss {told[0].loss:.4f} is {verdict} {words}; {count} {items}{'s'[: count != 1]}{few}."


def _mean(losses: Sequence[float], weights: Sequence[int]) -> float:
    return sum(loss * weight for loss, weight in zip(losses, weights, strict=True)) / sum(weights)
