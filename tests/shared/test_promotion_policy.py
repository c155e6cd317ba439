"""The gate's rule: what it decides on the held-out losses of a new version and its rivals, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.errors import InvalidRequest
from shared.promotion_policy import EVIDENCE, GateEvidence, PromotionPolicy, decide, mode_in

MANY = 30


def evidence(
    own: float, base: float | None = 2.0, live: float | None = None, *, number: int = MANY, noise: float = 0.1
) -> GateEvidence:
    """Losses around these, the noise of each example the same in none of them."""

    def around(loss: float, factor: int) -> tuple[float, ...]:
        return tuple(loss + noise * ((index * factor) % 7 - 3) / 3 for index in range(number))

    return GateEvidence(
        num_tokens=(5,) * number,
        own=around(own, 1),
        base=None if base is None else around(base, 3),
        live=None if live is None else around(live, 5),
        live_version=None if live is None else 4,
    )


def test_a_version_that_is_better_than_base_and_live_goes_live_and_the_figures_are_said() -> None:
    decision = decide(PromotionPolicy(), evidence(1.0, 2.0, 1.5))
    assert decision.is_promoted
    assert [(one.rival, one.version, one.is_better) for one in decision.comparisons] == [
        ("base", None, True),
        ("live", 4, True),
    ]
    assert decision.comparisons[0].difference.value == pytest.approx(-1.0, abs=0.02)
    assert decision.reason.startswith("Held-out loss ")
    assert "the base model's 1.9967 (-1.00" in decision.reason
    assert "version 4's 1." in decision.reason
    assert decision.reason.endswith("; 30 examples.")


@pytest.mark.parametrize(("own", "base", "live", "rival"), [(1.0, 0.9, None, "base"), (1.6, 2.0, 1.5, "live")])
def test_a_version_that_loses_to_one_rival_is_held(own: float, base: float, live: float | None, rival: str) -> None:
    decision = decide(PromotionPolicy(), evidence(own, base, live))
    assert not decision.is_promoted
    assert [one.rival for one in decision.comparisons if not one.is_better] == [rival]
    assert "not lower, or not by enough" in decision.reason
    assert len(decision.reason) < 255


def test_a_lower_loss_whose_interval_crosses_zero_is_not_enough() -> None:
    assert not decide(PromotionPolicy(), evidence(1.99, 2.0, noise=0.5)).is_promoted
    assert not decide(PromotionPolicy(), evidence(2.0, 2.0, noise=0.0)).is_promoted


def test_the_least_improvement_is_that_at_the_nearer_end_of_the_interval() -> None:
    found = evidence(1.0, 2.0)
    (comparison,) = decide(PromotionPolicy(), found).comparisons
    high = comparison.difference.high
    assert high is not None
    assert high > comparison.difference.value
    assert decide(PromotionPolicy(min_improvement=-high - 1e-6), found).is_promoted
    assert not decide(PromotionPolicy(min_improvement=-high + 1e-6), found).is_promoted


def test_with_few_examples_the_losses_alone_decide_and_that_is_said() -> None:
    few = evidence(1.9, 2.0, number=4, noise=0.5)
    decision = decide(PromotionPolicy(), few)
    assert decision.is_promoted == (decision.comparisons[0].difference.value < 0)
    assert decision.reason.endswith("4 examples; with fewer than 20 the losses alone decide.")
    assert not decide(PromotionPolicy(), evidence(2.5, 2.0, number=1)).is_promoted
    assert decide(PromotionPolicy(min_examples=1), evidence(1.5, 2.0, number=1)).is_promoted


def test_where_there_is_nothing_to_compare_nothing_speaks_against_a_version() -> None:
    nothing = decide(PromotionPolicy(), GateEvidence())
    assert nothing.is_promoted
    assert nothing.reason.startswith("Nothing is held out")
    alone = decide(PromotionPolicy(against=("live",)), evidence(9.0, 2.0))
    assert alone.is_promoted
    assert alone.comparisons == ()
    noted = evidence(1.0).model_copy(update={"live_version": 3, "notes": ("Version 3 was not compared: broken.",)})
    assert decide(PromotionPolicy(), noted).notes == noted.notes


def test_a_token_weighs_the_same_in_a_long_example_as_in_a_short_one() -> None:
    found = GateEvidence(num_tokens=(1, 99), own=(5.0, 1.0), base=(1.0, 2.0))
    (comparison,) = decide(PromotionPolicy(), found).comparisons
    assert (comparison.loss, comparison.rival_loss) == pytest.approx((1.04, 1.99))


def test_manual_and_always_need_no_evidence() -> None:
    assert not decide(PromotionPolicy(mode="manual")).is_promoted
    assert decide(PromotionPolicy(mode="always")).is_promoted
    with pytest.raises(ValueError, match="evidence"):
        decide(PromotionPolicy())


def test_a_training_comes_before_its_adapter_and_that_before_the_settings() -> None:
    stored = PromotionPolicy(mode="manual", min_improvement=0.2).model_dump(mode="json")
    assert PromotionPolicy.of(None, None, "always").mode == "always"
    assert PromotionPolicy.of(None, stored, "always").mode == "manual"
    both = PromotionPolicy.of("if_better", stored, "always")
    assert (both.mode, both.min_improvement) == ("if_better", 0.2)
    assert mode_in({}) is None
    assert mode_in({"promotion": "always"}) == "always"
    with pytest.raises(ValidationError):
        mode_in({"promotion": "sometimes"})


def test_a_trials_evidence_is_read_back_as_it_was_and_damage_is_said(tmp_path: Path) -> None:
    found = evidence(1.0, 2.0, 1.5)
    (tmp_path / EVIDENCE).write_text(found.model_dump_json())
    assert GateEvidence.load(tmp_path) == found
    (tmp_path / EVIDENCE).write_text("{")
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InvalidRequest, match="train again"):
            GateEvidence.load(folder)
