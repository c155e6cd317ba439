"""Which new versions of an adapter go live: the policy, and the rule by which the gate decides."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.intervals import ENOUGH_EXAMPLES, Interval

PromotionMode = Literal["manual", "always", "if_better"]
Rival = Literal["base", "live"]


class PromotionPolicy(BaseModel):
    """`manual`: only who promotes by hand moves `live`. `always`: every new version. `if_better`: one whose held-out
    loss is lower than that of each of `against`, by at least `min_improvement` at the nearer end of the interval.

    Where fewer than `min_examples` are held out, an interval says little, and the losses themselves decide, which is
    said. Where nothing is held out, or there is no rival, nothing speaks against the version and it goes live.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mode: PromotionMode = "if_better"
    min_improvement: float = Field(0.0, ge=0.0, le=100.0, description="Nats a token.")
    min_examples: int = Field(ENOUGH_EXAMPLES, ge=1, le=1_000_000)
    against: tuple[Rival, ...] = ("base", "live")


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


class GateDecision(BaseModel):
    """What the gate decided about a new version, and the sentence that says why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    is_promoted: bool
    reason: str
    policy: PromotionPolicy
    comparisons: tuple[Comparison, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As the history keeps it."""
        return self.model_dump(mode="json")
