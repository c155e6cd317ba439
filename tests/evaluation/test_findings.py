"""What a report warns of."""

from __future__ import annotations

import pytest

from shared.evaluation_parameters import Column
from worker.base_models.formats import PromptFormat
from worker.evaluation.contenders import Contender
from worker.evaluation.findings import FORGETTING_RISE, Measured, report_of, rows_of
from worker.evaluation.general import general_set
from worker.evaluation.judge import Judged
from worker.evaluation.losses import Losses, Scores
from worker.evaluation.material import Item, Language, Material
from worker.finetuning.held_out import ExampleScore

NUM_TOKENS = 10


def scores(losses: list[float]) -> Scores:
    return {number: ExampleScore(loss * NUM_TOKENS, NUM_TOKENS, 5) for number, loss in enumerate(losses, 1)}


def warnings(base: list[float], tuned: list[float]) -> tuple[str, ...]:
    items = tuple(Item(number, "general", wanted="x") for number in range(1, len(base) + 1))
    contenders = [Contender(0, Column(adapter="handbook", version=1), "demo", version_id="version-1")]
    losses = Losses({"handbook@1": scores(tuned)}, {"demo": scores(base)})
    measured = Measured(Material(items, Language(PromptFormat.TEXT, "")), contenders, losses, {}, Judged({}))
    return report_of(measured, rows_of(measured), [], advises=False).warnings


def test_a_version_that_surely_lost_more_than_the_threshold_is_warned_of() -> None:
    base = [2.0 + 0.1 * (number % 5) for number in range(40)]
    (said,) = warnings(base, [loss * (1.02 + 2 * FORGETTING_RISE) for loss in base])
    assert said.startswith(
        "handbook@1 has forgotten some of what its base model knew: its loss on 40 general texts is 22%"
    )
    assert warnings(base, [loss * (1 + FORGETTING_RISE / 2) for loss in base]) == ()
    assert warnings(base, [loss * 0.5 for loss in base]) == ()


def test_a_rise_that_is_not_sure_is_not_warned_of() -> None:
    base = [2.0] * 40
    tuned = [2.0] * 38 + [12.0] * 2  # a mean rise of a quarter, of two texts
    assert warnings(base, tuned) == ()


def test_a_version_whose_losses_are_no_numbers_is_said_to_be_of_no_use() -> None:
    assert warnings([2.0] * 3, [2.0, float("nan"), 2.0]) == (
        "handbook@1: its loss on general texts is not a finite number; it is of no use.",
    )


def test_the_general_set_has_about_sixty_short_items_and_none_twice() -> None:
    found = general_set()
    assert len(found) == 60
    assert len({one.text for one in found}) == 60
    assert all(0 < len(one.text) < 400 for one in found)
    assert sum(one.question is not None for one in found) == pytest.approx(30, abs=5)
