"""What a report warns of."""

from __future__ import annotations

import math

import pytest

from shared.evaluation_parameters import Column
from worker.base_models.formats import PromptFormat
from worker.evaluation.answers import Given
from worker.evaluation.contenders import Contender
from worker.evaluation.findings import FORGETTING_RISE, Measured, report_of, rows_of
from worker.evaluation.general import general_set
from worker.evaluation.judge import Judged
from worker.evaluation.losses import Losses, Scores
from worker.evaluation.material import Item, Language, Material
from worker.finetuning.held_out import ExampleScore

BASE = Column()
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


def measured(items: tuple[Item, ...], losses: list[float], answers: dict[int, Given]) -> Measured:
    """One column's."""
    found = Losses({BASE.label: scores(losses)}, {})
    given = {(number, 0): one for number, one in answers.items()}
    material = Material(items, Language(PromptFormat.TEXT, ""))
    return Measured(material, [Contender(0, BASE, "demo")], found, given, Judged({}))


def test_an_answer_without_a_wanted_one_is_compared_with_nothing() -> None:
    items = (Item(1, "held_out"), Item(2, "held_out", wanted="In Delft."))
    said = Given("In Delft.", None, metrics={"length": 3.0})
    alone, compared = rows_of(measured(items, [1.0, 1.0], {1: said, 2: said}))
    assert set(alone.answers["base"].metrics) == {"loss", "token_accuracy", "length"}
    assert compared.answers["base"].metrics["exact_match"] == 1.0


def test_examples_whose_losses_are_no_numbers_count_as_failed_and_are_warned_of() -> None:
    items = tuple(Item(number, "held_out", wanted="x") for number in (1, 2, 3))
    found = measured(items, [2.0, math.inf, math.nan], {2: Given("y", None, metrics={"length": math.nan})})
    rows = rows_of(found)
    report = report_of(found, rows, [], advises=False)
    assert [row.answers["base"].error for row in rows] == [
        None,
        "Not a finite number: loss, length.",
        "Not a finite number: loss.",
    ]
    assert report.columns[0].figures["loss"].value == 2.0
    assert report.columns[0].num_failed == 2
    assert [one.partition(";")[0] for one in report.warnings] == [
        "base: its loss is not a finite number on 2 of 3 examples"
    ]


def test_the_general_set_has_about_sixty_short_items_and_none_twice() -> None:
    found = general_set()
    assert len(found) == 60
    assert len({one.text for one in found}) == 60
    assert all(0 < len(one.text) < 400 for one in found)
    assert sum(one.question is not None for one in found) == pytest.approx(30, abs=5)
