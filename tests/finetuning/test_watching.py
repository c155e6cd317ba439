"""When a training is scored, saved and ended, what is best, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.errors import InvalidRequest, NonFiniteLoss
from shared.setup_parameters import SetupParameters
from shared.training_config import FineTuningConfig
from worker.finetuning.batches import Plan
from worker.finetuning.checkpoints import Position
from worker.finetuning.reports import EvaluationMetrics
from worker.finetuning.watching import (
    best_of,
    check_watchable,
    conclusions,
    is_evaluation_step,
    is_patience_over,
    is_save_due,
    is_snapshot_due,
    overfitting,
    with_evaluation,
)

PLAN = Plan.of(48, FineTuningConfig(num_epochs=4))  # 12 steps, 3 an epoch


def scores(*losses: float, trained: tuple[float, ...] = ()) -> list[EvaluationMetrics]:
    """Evaluations of the base model and then every ten steps; training losses fall by themselves."""
    falling = trained or tuple(2.0 - 0.1 * number for number in range(len(losses) - 1))
    return [
        EvaluationMetrics(10 * number, loss, 0.5, 100, train_loss)
        for number, (loss, train_loss) in enumerate(zip(losses, (None, *falling), strict=True))
    ]


def test_an_evaluation_comes_at_each_epochs_end_and_at_each_interval() -> None:
    assert [step for step in range(13) if is_evaluation_step(step, PLAN, None)] == [0, 3, 6, 9, 12]
    assert [step for step in range(13) if is_evaluation_step(step, PLAN, 5)] == [0, 3, 5, 6, 9, 10, 12]


def test_a_checkpoint_is_due_after_so_many_seconds_or_steps_whichever_comes_first() -> None:
    both = FineTuningConfig(checkpoint_interval_seconds=10.0, checkpoint_interval_steps=4)
    assert not is_save_due(both, seconds=9.9, steps=3)
    assert is_save_due(both, seconds=10.0, steps=3)
    assert is_save_due(both, seconds=0.0, steps=4)
    assert not is_save_due(FineTuningConfig(), seconds=59.0, steps=10**6)


def test_the_model_is_shown_at_each_epochs_end_and_where_patience_ends_before_one() -> None:
    assert [step for step in range(13) if is_snapshot_due(Position(step=step), PLAN, None)] == [3, 6, 9, 12]
    history = tuple(scores(3.0, 1.0, 2.0, 2.5))
    assert is_snapshot_due(Position(step=10, evaluations=history), PLAN, 2)
    assert not is_snapshot_due(Position(step=10, evaluations=history), PLAN, 3)


def test_the_best_evaluation_is_the_first_lowest_one_and_never_the_base_models() -> None:
    assert best_of([]) is None
    assert best_of(scores(1.0)) is None
    best = best_of(scores(1.0, 3.0, 2.0, 2.0, 2.5))
    assert best is not None
    assert best.step == 20


def test_patience_counts_the_evaluations_since_the_best_one() -> None:
    history = scores(1.0, 3.0, 2.0, 2.0, 2.5)
    assert [is_patience_over(history[:end], 2) for end in range(1, 6)] == [False, False, False, False, True]
    assert not is_patience_over(history, 3)
    assert not is_patience_over(history, None)


def test_an_evaluation_knows_the_training_loss_since_the_one_before() -> None:
    first = with_evaluation(Position(), EvaluationMetrics(0, 2.0, 0.1, 7))
    later = replace(first, step=3, recent_loss=9.0, recent_tokens=6)
    second = with_evaluation(later, EvaluationMetrics(3, 1.8, 0.2, 7))
    assert [one.train_loss for one in second.evaluations] == [None, 1.5]
    assert (second.recent_loss, second.recent_tokens) == (0.0, 0)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_an_evaluation_that_is_not_finite_is_an_error(loss: float) -> None:
    with pytest.raises(NonFiniteLoss, match="The held-out loss after step 4 is not a finite number; lower learning_r"):
        with_evaluation(Position(step=4), EvaluationMetrics(4, loss, 0.1, 7))


def test_overfitting_is_two_rises_in_a_row_while_the_training_loss_falls() -> None:
    (notice,) = overfitting(scores(3.0, 2.0, 2.1, 2.2), None)
    assert notice.level == "warn"
    assert notice.message == (
        "Over-fitting: the held-out loss has risen for two evaluations in a row, 2.0000 → 2.1000 → 2.2000, while the "
        "training loss fell to 1.8000. Best was 2.0000 after step 10. Set early_stopping_patience to publish the "
        "weights of the best step, or lower num_epochs."
    )
    (notice,) = overfitting(scores(3.0, 2.0, 2.1, 2.2), 5)
    assert notice.message.endswith("The weights of the best step are kept.")


@pytest.mark.parametrize(
    "history",
    [
        scores(3.0, 2.0, 2.1),
        scores(3.0, 2.0, 2.1, 2.05, 2.2),
        scores(3.0, 2.0, 2.1, 2.1),
        scores(3.0, 2.0, 2.1, 2.2, trained=(2.0, 2.0, 1.9)),
        scores(3.0, 2.0, 2.1, 2.2, 2.3),
        scores(3.0, 2.0, 2.1, 2.2, 1.9, 2.0, 2.1),
    ],
    ids=["one rise", "a fall between", "no rise", "the training loss stood still", "said before", "said long before"],
)
def test_nothing_is_said_of(history: list[EvaluationMetrics]) -> None:
    assert overfitting(history, None) == []


def test_a_model_that_only_gets_worse_is_overfitting_from_the_base_model_on() -> None:
    assert overfitting(scores(2.0, 2.1, 2.2), None)
    assert not overfitting(scores(2.0, 2.1, 2.2, trained=(1.0, 1.1)), None)


def test_the_conclusion_names_the_weights_and_the_end() -> None:
    position = Position(step=6, evaluations=tuple(scores(3.0, 2.0, 2.1)))
    assert conclusions(replace(position, step=12), PLAN, None) == []
    (notice,) = conclusions(Position(step=12, evaluations=tuple(scores(3.0, 3.5))), PLAN, None)
    assert notice.level == "warn"
    assert notice.message.startswith(
        "Training never brought the held-out loss below the base model's 3.0000 (best: 3.5"
    )
    assert conclusions(Position(step=12), PLAN, None) == []


def test_early_stopping_needs_something_to_watch() -> None:
    check_watchable(FineTuningConfig(), 0)
    check_watchable(FineTuningConfig(early_stopping_patience=1), 1)
    with pytest.raises(InvalidRequest, match="early_stopping_patience needs held-out examples"):
        check_watchable(FineTuningConfig(early_stopping_patience=1), 0)
    with pytest.raises(ValueError, match="early_stopping_patience needs held-out examples"):
        SetupParameters(validation_split=0.0, config=FineTuningConfig(early_stopping_patience=1))
