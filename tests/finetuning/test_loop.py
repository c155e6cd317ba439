"""The training loop, on tiny models of real architectures."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments

from shared.errors import InvalidRequest, NonFiniteLoss, NothingToLearn, OutOfMemory
from shared.training_config import FineTuningConfig
from tests.finetuning.conftest import examples_for, make_examples
from tests.tiny_models import ARCHITECTURES, make_model
from worker.base_models.formats import MASKED, Example
from worker.finetuning.batches import Plan, Split, data_order
from worker.finetuning.checkpoints import Checkpoints, trainable
from worker.finetuning.loop import train
from worker.finetuning.lora import add_lora
from worker.finetuning.reports import (
    EvaluationMetrics,
    EvaluationProgress,
    Notice,
    StepMetrics,
    TrainingOutcome,
    TrainingStarted,
)


def run(
    config: FineTuningConfig, architecture: str = "gpt2", *, number: int = 11, held_out: int = 5, **options: Any
) -> tuple[PeftModel, list[Any]]:
    """A fresh model trained on fresh examples, and what was reported."""
    model = add_lora(make_model(architecture, dropout=options.pop("dropout", 0.1)), config)
    reports: list[Any] = []
    train(
        model,
        examples_for(architecture, number),
        examples_for(architecture, held_out, seed=99),
        config,
        report=reports.append,
        **options,
    )
    return model, reports


def weights(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainable(model)}


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def of_kind(reports: list[Any], kind: type) -> list[Any]:
    return [report for report in reports if isinstance(report, kind)]


class _InOurOrder(Sampler[int]):
    """Trainer's examples in the order in which our loop takes them, epoch by epoch."""

    def __init__(self, number: int, seed: int) -> None:
        self.number, self.seed, self.epoch = number, seed, 0

    def __len__(self) -> int:
        return self.number

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        return iter(data_order(self.number, self.seed, self.epoch))


class _PeerTrainer(Trainer):
    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return _InOurOrder(len(self.train_dataset), 0)


def collate_for_peer(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    def padded(name: str, value: int) -> torch.Tensor:
        tensors = [torch.tensor(row[name]) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)

    mask = [torch.ones(len(row["input_ids"]), dtype=torch.long) for row in rows]
    attention = torch.nn.utils.rnn.pad_sequence(mask, batch_first=True)
    return {"input_ids": padded("input_ids", 0), "attention_mask": attention, "labels": padded("labels", MASKED)}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the peer's own
@pytest.mark.filterwarnings("ignore:.*pin_memory.*")  # the peer's own, without a GPU
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_steps_loss_and_learning_rate_equal_those_of_transformers_trainer(
    architecture: str, quick_config: FineTuningConfig, tmp_path: Path
) -> None:
    update = {"lora_dropout": 0.0, "warmup_ratio": 0.2, "learning_rate": 1e-2, "num_epochs": 5}
    config = quick_config.model_copy(update=update)
    _, reports = run(config, architecture, number=14, dropout=0.0)
    ours = of_kind(reports, StepMetrics)
    rows = [{"input_ids": one.input_ids, "labels": one.labels} for one in examples_for(architecture, 14)]
    # Trainer adds up the micro-batches' own means for T5 (seen: twice the loss), so it gets the step as one batch.
    size, splits = (4, 1) if architecture == "t5" else (2, 2)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=5,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=splits,
        learning_rate=1e-2,
        warmup_steps=0.2,
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        optim="adamw_torch",
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
    )
    model = add_lora(make_model(architecture, dropout=0.0), config)
    peer = _PeerTrainer(model=model, args=arguments, train_dataset=rows, data_collator=collate_for_peer)
    peer.train()
    theirs = [entry for entry in peer.state.log_history if "loss" in entry]
    assert len(ours) == len(theirs) == 20
    assert [step.train_loss for step in ours] == pytest.approx([entry["loss"] for entry in theirs], abs=1e-4)
    assert [step.learning_rate for step in ours] == pytest.approx([entry["learning_rate"] for entry in theirs])
    assert [step.gradient_norm for step in ours] == pytest.approx([entry["grad_norm"] for entry in theirs], rel=1e-3)
    assert ours[-1].train_loss < ours[0].train_loss


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_four_times_four_learns_the_same_as_sixteen_times_one(
    architecture: str, quick_config: FineTuningConfig
) -> None:
    base = {"lora_dropout": 0.0}
    split = quick_config.model_copy(update={**base, "batch_size": 4, "gradient_accumulation_steps": 4})
    whole = quick_config.model_copy(update={**base, "batch_size": 16, "gradient_accumulation_steps": 1})
    one, one_reports = run(split, architecture, number=37, dropout=0.0, split=Split(4, 10_000, is_joined=False))
    other, other_reports = run(whole, architecture, number=37, dropout=0.0, split=Split(16, 10_000, is_joined=False))
    losses = [[step.train_loss for step in of_kind(each, StepMetrics)] for each in (one_reports, other_reports)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for name, tensor in weights(one).items():
        assert torch.allclose(tensor, weights(other)[name], atol=1e-4), name


def test_the_loss_is_the_mean_over_supervised_tokens_and_not_over_examples(quick_config: FineTuningConfig) -> None:
    config = quick_config.model_copy(update={"lora_dropout": 0.0, "num_epochs": 1})
    rows = [Example([1, 2], [MASKED, 2]), Example(list(range(1, 30)), [MASKED, *range(2, 30)])]
    model = add_lora(make_model("gpt2", dropout=0.0), config)
    with torch.no_grad():
        sums = [
            torch.nn.functional.cross_entropy(
                model(torch.tensor([row.input_ids])).logits[0, :-1], torch.tensor(row.labels[1:]), reduction="sum"
            )
            for row in rows
        ]
    reports: list[Any] = []
    train(model, rows, [], config, report=reports.append)
    assert of_kind(reports, StepMetrics)[0].train_loss == pytest.approx(float(sum(sums)) / 29, abs=1e-5)


def test_the_end_token_is_learned_although_it_also_pads(quick_config: FineTuningConfig) -> None:
    config = quick_config.model_copy(update={"num_epochs": 30, "learning_rate": 2e-2, "lora_dropout": 0.0})
    rows = [Example([5, 6, 7, 0], [MASKED, 6, 7, 0]), Example([8, 9, 0], [MASKED, 9, 0])] * 2
    model = add_lora(make_model("gpt2", dropout=0.0), config)
    train(model, rows, [], config)
    model.eval()
    for row in rows[:2]:
        assert int(model(torch.tensor([row.input_ids[:-1]])).logits[0, -1].argmax()) == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_interrupted_run_ends_with_the_same_bits_as_an_uninterrupted_one(
    architecture: str, quick_config: FineTuningConfig, tmp_path: Path
) -> None:
    undisturbed, reports = run(quick_config, architecture)
    expected = _lasting(reports)
    checks = _Counter()
    run(quick_config, architecture, should_stop=checks)
    source = random.Random(architecture)
    for round_number in range(3):
        folder = tmp_path / str(round_number)
        stops = sorted(source.sample(range(checks.number), 2))
        told: list[Any] = []
        for index, stop_at in enumerate([*stops, None]):
            model, new = run(
                quick_config,
                architecture,
                checkpoints=Checkpoints(folder, keep=2, identity="run"),
                should_stop=_Counter(None if stop_at is None else stop_at - (stops[index - 1] if index else 0)),
            )
            told += _lasting(new)
        assert are_equal(weights(model), weights(undisturbed)), stops
        assert told == expected


class _Counter:
    """`should_stop` that turns true at the n-th question (never, for None)."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.number = stop_at, 0

    def __call__(self) -> bool:
        self.number += 1
        return self.stop_at is not None and self.number > self.stop_at


def _lasting(reports: list[Any]) -> list[Any]:
    """What must not depend on interruptions: everything but times and signs of life."""
    return [
        (one.step, one.train_loss, one.learning_rate, one.gradient_norm, one.train_accuracy)
        if isinstance(one, StepMetrics)
        else one
        for one in reports
        if isinstance(one, StepMetrics | EvaluationMetrics)
    ]


def test_a_killed_run_goes_on_from_its_last_checkpoint_with_the_same_bits(
    quick_config: FineTuningConfig, tmp_path: Path
) -> None:
    undisturbed, _ = run(quick_config)
    often = quick_config.model_copy(update={"checkpoint_interval_seconds": 1e-9})

    def die_at(step: int) -> Callable[[Any], None]:
        def report(metrics: Any) -> None:
            if isinstance(metrics, StepMetrics) and metrics.step == step:
                raise KeyboardInterrupt  # nothing of ours may run after it, as after a kill

        return report

    for step in (2, 4):
        model = add_lora(make_model("gpt2"), often)
        with pytest.raises(KeyboardInterrupt):
            train(
                model, examples_for("gpt2", 11), examples_for("gpt2", 5, seed=99), often,
                checkpoints=Checkpoints(tmp_path, keep=2, identity="run"), report=die_at(step),
            )  # fmt: skip
    model, reports = run(often, checkpoints=Checkpoints(tmp_path, keep=2, identity="run"))
    assert of_kind(reports, StepMetrics)[0].step == 4
    assert are_equal(weights(model), weights(undisturbed))


def test_resuming_a_finished_run_trains_no_step_and_knows_its_outcome(
    quick_config: FineTuningConfig, tmp_path: Path
) -> None:
    def once() -> Any:
        model = add_lora(make_model("gpt2"), quick_config)
        checkpoints = Checkpoints(tmp_path, keep=2, identity="run")
        return train(model, make_examples(8), make_examples(3, seed=9), quick_config, checkpoints=checkpoints)

    first, second = once(), once()
    assert first == second
    assert first.num_steps == first.total_steps == 4
    assert first.final is not None
    assert first.base is not None
    assert not first.is_stopped


def test_a_stop_is_obeyed_while_held_out_examples_are_scored(quick_config: FineTuningConfig) -> None:
    model = add_lora(make_model("gpt2"), quick_config)
    reports: list[Any] = []
    outcome = train(
        model,
        make_examples(8),
        make_examples(9),
        quick_config,
        split=Split(2, 32),
        report=reports.append,
        should_stop=_Counter(2),
    )
    assert outcome.is_stopped
    assert outcome.num_steps == 0
    assert len(of_kind(reports, EvaluationProgress)) == 2
    assert not of_kind(reports, EvaluationMetrics)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_held_out_examples_are_scored_before_training_and_after_each_epoch(
    architecture: str, quick_config: FineTuningConfig
) -> None:
    _, reports = run(quick_config, architecture)
    scores = of_kind(reports, EvaluationMetrics)
    assert [score.step for score in scores] == [0, 3, 6]
    base = make_model(architecture).eval()
    loss, number = 0.0, 0
    for row in examples_for(architecture, 5, seed=99):
        with torch.no_grad():
            labels = torch.tensor([row.labels])
            one = base(input_ids=torch.tensor([row.input_ids]), labels=labels).loss
        count = int((labels if architecture == "t5" else labels[:, 1:]).ne(MASKED).sum())
        loss, number = loss + float(one) * count, number + count
    assert scores[0].num_tokens == number
    assert scores[0].loss == pytest.approx(loss / number, abs=1e-5)
    assert 0.0 <= scores[0].accuracy <= 1.0


def test_held_out_examples_are_scored_as_often_as_wanted_beside_each_epochs_end(quick_config: FineTuningConfig) -> None:
    _, reports = run(quick_config.model_copy(update={"evaluation_interval_steps": 2}))
    assert [score.step for score in of_kind(reports, EvaluationMetrics)] == [0, 2, 3, 4, 6]
    assert [step.step for step in of_kind(reports, StepMetrics) if step.has_evaluation] == [2, 3, 4, 6]
    losses = {step.step: step.train_loss for step in of_kind(reports, StepMetrics)}
    third = of_kind(reports, EvaluationMetrics)[2]
    assert third.train_loss == pytest.approx(losses[3])  # the one step since the evaluation before
    _, reports = run(quick_config.model_copy(update={"evaluation_interval_steps": 2}), held_out=0)
    assert not [one for one in reports if isinstance(one, EvaluationMetrics) or getattr(one, "has_evaluation", False)]


@pytest.fixture
def overfitting_config(quick_config: FineTuningConfig) -> FineTuningConfig:
    """The held-out loss of random rows falls while the model learns which tokens there are, and rises after step 10,
    when it learns the rows."""
    return quick_config.model_copy(update={"learning_rate": 1e-2, "num_epochs": 12, "evaluation_interval_steps": 2})


def with_patience(config: FineTuningConfig, patience: int = 3) -> FineTuningConfig:
    return config.model_copy(update={"early_stopping_patience": patience})


def train_once(config: FineTuningConfig, **options: Any) -> tuple[dict[str, torch.Tensor], TrainingOutcome, list[Any]]:
    """The weights, the outcome and the reports of a fresh model's training."""
    model = add_lora(make_model("gpt2"), config)
    reports: list[Any] = []
    rows, held_out = examples_for("gpt2", 11), examples_for("gpt2", 5, seed=99)
    outcome = train(model, rows, held_out, config, **{"report": reports.append, **options})
    return weights(model), outcome, reports


def test_early_stopping_ends_with_the_weights_that_scored_best(overfitting_config: FineTuningConfig) -> None:
    model = add_lora(make_model("gpt2"), overfitting_config)
    seen: dict[int, dict[str, torch.Tensor]] = {}
    scores: dict[int, EvaluationMetrics] = {}

    def look(metrics: Any) -> None:
        if isinstance(metrics, EvaluationMetrics):
            seen[metrics.step], scores[metrics.step] = weights(model), metrics

    whole = train(model, examples_for("gpt2", 11), examples_for("gpt2", 5, seed=99), overfitting_config, report=look)
    best = min((step for step in scores if step), key=lambda step: scores[step].loss)
    later = [step for step in scores if step > best]
    assert (whole.num_steps, whole.final, whole.best) == (36, scores[36], scores[best])
    assert not whole.is_stopped_early

    kept, outcome, reports = train_once(with_patience(overfitting_config))
    assert are_equal(kept, seen[best])
    assert (outcome.best, outcome.final, outcome.base) == (scores[best], scores[best], scores[0])
    assert outcome.is_stopped_early
    assert not outcome.is_stopped
    assert outcome.num_steps == later[2] < outcome.total_steps == 36
    assert of_kind(reports, StepMetrics)[-1].step == later[2]
    said = [notice.message for notice in of_kind(reports, Notice)]
    assert said[-2] == (
        f"Stopped early after step {later[2]} of 36: 3 evaluations brought no held-out loss below "
        f"{scores[best].loss:.4f}, that of step {best}."
    )
    assert said[-1] == f"The weights are those after step {best}, whose held-out loss is the lowest."


def test_patience_that_is_never_over_still_gives_the_best_weights(overfitting_config: FineTuningConfig) -> None:
    early, _, _ = train_once(with_patience(overfitting_config))
    kept, outcome, reports = train_once(with_patience(overfitting_config, 100))
    assert outcome.num_steps == 36
    assert not outcome.is_stopped_early
    assert outcome.final == outcome.best
    assert are_equal(kept, early)
    assert of_kind(reports, Notice)[-1].message.startswith("The weights are those after step ")


def test_the_best_weights_outlive_kills_stops_and_their_own_checkpoint(
    overfitting_config: FineTuningConfig, tmp_path: Path
) -> None:
    config = with_patience(overfitting_config).model_copy(update={"checkpoint_interval_steps": 1})
    expected, whole, reports = train_once(config)
    told = _lasting(reports)
    assert whole.best is not None
    source = random.Random("best")
    for round_number in range(2):
        folder, retold = tmp_path / str(round_number), []
        for kill_at in [*sorted(source.sample(range(1, whole.num_steps), 2)), whole.num_steps, None]:
            new: list[Any] = []

            def report(metrics: Any, kill_at: int | None = kill_at, new: list[Any] = new) -> None:
                new.append(metrics)
                if isinstance(metrics, StepMetrics) and metrics.step == kill_at:
                    raise KeyboardInterrupt  # nothing of ours may run after it, as after a kill

            checkpoints = Checkpoints(folder, keep=1, identity="run")
            try:
                weights_now, outcome, _ = train_once(config, checkpoints=checkpoints, report=report)
            except KeyboardInterrupt:
                assert kill_at is not None
            retold += [one for one in _lasting(new) if one not in retold]
        assert len(list(folder.iterdir())) == 1
        assert are_equal(weights_now, expected)
        assert retold == told
        assert (outcome.num_steps, outcome.best, outcome.final) == (whole.num_steps, whole.best, whole.final)
        assert outcome.is_stopped_early
        # and once more, as when the attempt died while it published
        again, repeated, _ = train_once(config, checkpoints=Checkpoints(folder, keep=1, identity="run"))
        assert are_equal(again, expected)
        assert repeated == outcome


def test_damaged_best_weights_cost_a_few_steps_and_are_said(
    overfitting_config: FineTuningConfig, tmp_path: Path
) -> None:
    config = with_patience(overfitting_config)
    expected, whole, _ = train_once(config, checkpoints=Checkpoints(tmp_path, keep=20, identity="run"))
    path = max(tmp_path.iterdir()) / "state.safetensors"
    assert b"best/weight/" in path.read_bytes()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    kept, outcome, reports = train_once(config, checkpoints=Checkpoints(tmp_path, keep=20, identity="run"))
    assert are_equal(kept, expected)
    assert outcome.best == whole.best
    (started,) = of_kind(reports, TrainingStarted)
    assert 0 < started.step < whole.num_steps
    damage = of_kind(reports, Notice)[0]
    assert damage.level == "warn"
    assert "its files are damaged. The one before it is gone on from" in damage.message


def test_early_stopping_without_held_out_examples_is_refused_at_once(quick_config: FineTuningConfig) -> None:
    model = add_lora(make_model("gpt2"), quick_config)
    reports: list[Any] = []
    with pytest.raises(InvalidRequest, match="early_stopping_patience needs held-out examples"):
        train(model, make_examples(8), [], with_patience(quick_config), report=reports.append)
    assert reports == []


def test_overfitting_is_said_once_also_by_a_run_that_goes_on(
    overfitting_config: FineTuningConfig, tmp_path: Path
) -> None:
    def warnings_of(reports: list[Any]) -> list[str]:
        return [one.message for one in of_kind(reports, Notice) if one.level == "warn"]

    config = overfitting_config.model_copy(update={"evaluation_interval_steps": None})
    _, _, reports = train_once(config)
    (warning,) = warnings_of(reports)
    scores = of_kind(reports, EvaluationMetrics)
    best = min(scores, key=lambda score: score.loss)
    assert warning.startswith("Over-fitting: the held-out loss has risen for two evaluations in a row, ")
    assert f"Best was {best.loss:.4f} after step {best.step}. Set early_stopping_patience" in warning
    place = reports.index(next(one for one in reports if isinstance(one, Notice)))
    last_three = of_kind(reports[:place], EvaluationMetrics)[-3:]
    assert last_three[0].loss < last_three[1].loss < last_three[2].loss
    assert scores[-3].loss < scores[-2].loss < scores[-1].loss  # and it went on

    checks, warned = _Counter(), []
    train_once(config, should_stop=checks)
    for stop_at in (checks.number - 1, None):
        checkpoints = Checkpoints(tmp_path, keep=2, identity="run")
        _, _, told = train_once(config, checkpoints=checkpoints, should_stop=_Counter(stop_at))
        warned.append(warnings_of(told))
    assert warned == [[warning], []]


def test_a_training_that_only_harms_says_so(quick_config: FineTuningConfig) -> None:
    rows = [Example([5, 6, 7, 0], [MASKED, 6, 7, 0])] * 8
    model = add_lora(make_model("gpt2"), quick_config)
    reports: list[Any] = []
    config = quick_config.model_copy(update={"learning_rate": 5e-2, "num_epochs": 10})
    train(model, rows, [Example([9, 10, 11, 12], [MASKED, 10, 11, 12])], config, report=reports.append)
    assert of_kind(reports, Notice)[-1].message.startswith("Training never brought the held-out loss below the base")


def test_a_held_out_loss_that_is_not_finite_stops_the_run_and_leaves_the_checkpoint_before_it(
    quick_config: FineTuningConfig, tmp_path: Path
) -> None:
    held_out = [Example([3, 200, 5], [MASKED, 200, 5])]  # a token that no step learns from

    def attempt(config: FineTuningConfig, identity: str, *, broken_at: int | None) -> tuple[list[Any], Any]:
        model = add_lora(make_model("llama"), config)
        reports: list[Any] = []

        def report(metrics: Any) -> None:
            reports.append(metrics)
            if isinstance(metrics, StepMetrics) and metrics.step == broken_at:
                with torch.no_grad():
                    model.get_input_embeddings().weight[200] = float("nan")

        checkpoints = Checkpoints(tmp_path, keep=2, identity=identity)
        try:
            return reports, train(model, make_examples(11), held_out, config, checkpoints=checkpoints, report=report)
        except NonFiniteLoss as error:
            return reports, error

    config = quick_config.model_copy(update={"checkpoint_interval_steps": 1})
    reports, error = attempt(config, "run", broken_at=3)
    assert isinstance(error, NonFiniteLoss)
    assert error.detail == (
        "The held-out loss after step 3 is not a finite number; lower learning_rate or check the data."
    )
    assert all(score.loss == score.loss for score in of_kind(reports, EvaluationMetrics))
    kept = Checkpoints(tmp_path, keep=2, identity="run").latest()
    assert kept is not None
    assert kept.position.step == 2

    # The same run goes on from there, and only there: another learning rate is another run, from its own beginning.
    reports, error = attempt(config, "run", broken_at=3)
    assert isinstance(error, NonFiniteLoss)
    assert [step.step for step in of_kind(reports, StepMetrics)] == [3]
    reports, outcome = attempt(config.model_copy(update={"learning_rate": 1e-4}), "lower", broken_at=None)
    assert [step.step for step in of_kind(reports, StepMetrics)] == [1, 2, 3, 4, 5, 6]
    assert outcome.final is not None
    assert "another configuration" in of_kind(reports, Notice)[0].message


def test_a_base_model_that_cannot_be_scored_is_said_before_training(quick_config: FineTuningConfig) -> None:
    model = add_lora(make_model("gpt2"), quick_config)
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = float("nan")
    with pytest.raises(NonFiniteLoss, match="The held-out loss before training is not a finite number"):
        train(model, make_examples(4), [Example([5, 5], [MASKED, 5])], quick_config)


def test_a_checkpoint_is_written_every_so_many_steps(quick_config: FineTuningConfig, tmp_path: Path) -> None:
    config = quick_config.model_copy(update={"checkpoint_interval_steps": 2, "num_epochs": 1})
    at_step: dict[int, int] = {}

    def report(metrics: Any) -> None:
        found = Checkpoints(tmp_path, keep=2, identity="run").latest()
        at_step[metrics.step] = -1 if found is None else found.position.step

    model = add_lora(make_model("gpt2"), config)
    train(
        model, make_examples(26), [], config, checkpoints=Checkpoints(tmp_path, keep=2, identity="run"), report=report
    )
    assert at_step == {0: -1, 1: 0, 2: 0, 3: 2, 4: 2, 5: 4, 6: 4, 7: 6}
    assert {path.name.split("-")[1] for path in tmp_path.iterdir()} == {"00000004", "00000005"}


def test_the_same_model_goes_on_after_it_ran_out_of_memory(quick_config: FineTuningConfig, tmp_path: Path) -> None:
    config = quick_config.model_copy(update={"checkpoint_interval_steps": 1})
    undisturbed, _, _ = train_once(config)
    model = add_lora(make_model("gpt2"), config)
    rows, held_out = examples_for("gpt2", 11), examples_for("gpt2", 5, seed=99)
    starts: list[int] = []

    def exhaust_after_step_4(metrics: Any) -> None:
        if isinstance(metrics, TrainingStarted):
            starts.append(metrics.step)
        if isinstance(metrics, StepMetrics) and metrics.step == 4 and len(starts) == 1:
            raise torch.OutOfMemoryError

    def attempt() -> None:
        checkpoints = Checkpoints(tmp_path, keep=2, identity="run")
        train(model, rows, held_out, config, checkpoints=checkpoints, report=exhaust_after_step_4)

    with pytest.raises(OutOfMemory):
        attempt()
    attempt()
    assert starts == [0, 3]
    assert are_equal(weights(model), undisturbed)


def test_memory_is_reported_with_each_step_and_its_peak_at_the_end(quick_config: FineTuningConfig) -> None:
    _, outcome, reports = train_once(quick_config)
    steps = of_kind(reports, StepMetrics)
    assert all(10**7 < step.memory_bytes <= step.peak_memory_bytes for step in steps)
    assert outcome.peak_memory_bytes >= steps[-1].peak_memory_bytes


def test_a_loss_that_is_not_finite_stops_the_run_before_it_reaches_the_weights(quick_config: FineTuningConfig) -> None:
    model = add_lora(make_model("gpt2"), quick_config)
    before = weights(model)
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = float("nan")
    rows = [Example([5, 5, 5], [MASKED, 5, 5])] * 4
    with pytest.raises(NonFiniteLoss, match="At step 1"):
        train(model, rows, [], quick_config)
    assert are_equal(weights(model), before)


def test_too_little_memory_is_an_error_of_the_tree(quick_config: FineTuningConfig) -> None:
    model = add_lora(make_model("gpt2"), quick_config)

    def exhaust(module: object, args: object) -> None:
        torch.empty(2**60)

    model.get_output_embeddings().register_forward_pre_hook(exhaust)
    with pytest.raises(OutOfMemory):
        train(model, make_examples(4), [], quick_config)


def test_examples_without_anything_to_learn_are_refused(quick_config: FineTuningConfig) -> None:
    model = add_lora(make_model("gpt2"), quick_config)
    with pytest.raises(NothingToLearn):
        train(model, [Example([1, 2], [1, MASKED])], [], quick_config)


def test_every_example_is_learned_once_an_epoch_in_an_order_of_seed_and_epoch_alone() -> None:
    plan = Plan.of(11, FineTuningConfig(batch_size=2, gradient_accumulation_steps=2, num_epochs=2))
    steps = [plan.examples_of(step) for step in range(plan.total_steps)]
    epochs = [sum(steps[:3], ()), sum(steps[3:], ())]
    assert [len(step) for step in steps] == [4, 4, 3, 4, 4, 3]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[0] == data_order(11, 0, 0) != data_order(11, 1, 0)


def test_a_run_of_one_step_does_not_spend_it_on_the_warm_ups_zero() -> None:
    plan = Plan.of(3, FineTuningConfig(num_epochs=1, learning_rate=1e-3))
    assert [plan.learning_rate_after(step) for step in range(plan.total_steps)] == [1e-3]


def test_only_lora_weights_learn_and_no_logits_are_made(quick_config: FineTuningConfig) -> None:
    model = add_lora(make_model("gpt2"), quick_config)
    frozen = {name: tensor.clone() for name, tensor in model.state_dict().items() if "lora_" not in name}
    seen: list[torch.Size] = []
    model.get_output_embeddings().register_forward_hook(lambda module, args, output: seen.append(output.shape))
    config = quick_config.model_copy(update={"num_epochs": 1})
    train(model, [Example([1, 2, 3, 4], [MASKED, MASKED, 3, 4]), Example([1, 2], [MASKED, 2])], [], config)
    assert seen[-1] == (1, 0, 257)  # the loss is made of the hidden states themselves
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in model.state_dict().items() if name in frozen)
