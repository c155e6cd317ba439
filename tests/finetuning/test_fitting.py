"""Fitting into memory: what is lowered, in which order, with which words, and that the result stays the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from shared.errors import InvalidRequest, NothingToLearn, OutOfMemory
from shared.training_config import FineTuningConfig
from shared.training_method import DpoMethod
from tests.finetuning.conftest import examples_for, make_examples
from tests.tiny_models import ARCHITECTURES, make_model
from worker.base_models.formats import Example, PreferencePair
from worker.base_models.loading import load_model
from worker.finetuning.batches import Split
from worker.finetuning.checkpoints import Checkpoints, trainable
from worker.finetuning.fitting import Frugality, Notches, Trained, train_within_memory
from worker.finetuning.footprint import needed_bytes
from worker.finetuning.learner import Learner
from worker.finetuning.loop import train
from worker.finetuning.lora import add_lora
from worker.finetuning.preflight import heaviest, pass_lengths
from worker.finetuning.reports import EvaluationMetrics, Notice, Preflight, StepMetrics, TrainingStarted


@pytest.fixture
def config(quick_config: FineTuningConfig) -> FineTuningConfig:
    """Without dropout, so that losses do not depend on how a step is split."""
    changes = {"lora_dropout": 0.0, "checkpoint_interval_seconds": 1e-9, "num_epochs": 1}
    return quick_config.model_copy(update=changes)


def loaded(config: FineTuningConfig) -> PeftModel:
    return add_lora(make_model("gpt2", dropout=0.0), config)


def rows(*lengths: int) -> list[Example]:
    return [Example([1 + index % 7] * length, [1 + index % 7] * length) for index, length in enumerate(lengths)]


TRAIN, HELD_OUT = make_examples(12, longest=60), make_examples(5, seed=9, longest=60)
LONGEST = max(len(one.input_ids) for one in TRAIN)


def fitted(config: FineTuningConfig, load: Callable[[FineTuningConfig], PeftModel] = loaded, **options: Any) -> Any:
    reports: list[Any] = []
    trained = train_within_memory(load, TRAIN, HELD_OUT, config, report=reports.append, **options)
    return trained, reports


def of_kind(reports: list[Any], kind: type) -> list[Any]:
    return [one for one in reports if isinstance(one, kind)]


def warnings(reports: list[Any]) -> list[str]:
    return [one.message for one in of_kind(reports, Notice) if one.level == "warn"]


def losses(reports: list[Any]) -> list[float]:
    """Training and held-out losses in the order of their steps; of a step that was taken twice, the later one."""
    told = {(one.step, True): one.train_loss for one in of_kind(reports, StepMetrics)}
    told |= {(one.step, False): one.loss for one in of_kind(reports, EvaluationMetrics)}
    return [told[key] for key in sorted(told)]


def trained_with(config: FineTuningConfig, max_tokens: int | None = None) -> tuple[PeftModel, list[Any]]:
    """The loop alone, undisturbed."""
    model, reports = loaded(config), []
    split = None if max_tokens is None else Split(config.batch_size, max_tokens)
    train(model, TRAIN, HELD_OUT, config, split=split, report=reports.append)
    return model, reports


def weights(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainable(model)}


def tokens_at_most(config: FineTuningConfig) -> int:
    """Of the longest pass, if nothing is lowered."""
    split = Split.of(config, torch.device("cpu"), make_model("gpt2").config)
    return sum(pass_lengths(heaviest(TRAIN, split, is_joined=True, at_once=4), is_joined=True))


def enough_for(config: FineTuningConfig, split: Split, *, is_checkpointing: bool = False) -> int:
    """Bytes that do for the longest batch of such a split."""
    model = loaded(config)
    if is_checkpointing:
        model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    learner = Learner(model, config, split)
    batch = heaviest(TRAIN, split, is_joined=learner.is_joined, at_once=4)
    with learner.running():
        return needed_bytes(learner, batch, pass_lengths(batch, is_joined=learner.is_joined), enough=0)


def test_what_fits_is_trained_as_the_loop_trains_it_to_the_bit(config: FineTuningConfig) -> None:
    expected, reports = trained_with(config)
    trained, new = fitted(config)
    assert all(torch.equal(one, weights(trained.model)[name]) for name, one in weights(expected).items())
    assert losses(new) == losses(reports)
    assert warnings(new) == []
    assert of_kind(new, Notice)[-1].message == "Gradient checkpointing: off, for the longest batch fits without it"
    kinds = [type(one) for one in new]
    assert kinds.index(Preflight) < kinds.index(TrainingStarted)


def test_tokens_are_halved_until_one_item_is_left_then_checkpointing_then_4bit(config: FineTuningConfig) -> None:
    config = config.model_copy(update={"allow_4bit": True})
    items = rows(50, 40, 20, 20, 20)  # of which a step has four
    steps = [Frugality(Split(4, 150, is_joined=True), is_checkpointing=False, quantization="none")]
    while (lower := steps[-1].lowered(items, config, can_checkpoint=True)) is not None:
        steps.append(lower)
    assert [(one.split.max_tokens, one.is_checkpointing, one.quantization) for one in steps if one.split] == [
        (150, False, "none"), (65, False, "none"), (65, True, "none"), (65, True, "4bit"),
    ]  # fmt: skip


def test_padding_counts_and_a_preset_choice_is_kept(config: FineTuningConfig) -> None:
    config = config.model_copy(update={"gradient_checkpointing": False})
    items = rows(50, 40, 20, 20, 20)
    steps = [Frugality(Split(2, 1000, is_joined=False), is_checkpointing=False, quantization="none")]
    while (lower := steps[-1].lowered(items, config, can_checkpoint=True)) is not None:
        steps.append(lower)
    assert [one.split.max_tokens for one in steps if one.split] == [1000, 50]
    unknown = Frugality(Split(1, 50, is_joined=False), is_checkpointing=False, quantization="none")
    config = config.model_copy(update={"gradient_checkpointing": None})
    assert unknown.lowered(items, config, can_checkpoint=False) is None


def test_too_large_a_batch_is_split_more_and_the_losses_stay(config: FineTuningConfig) -> None:
    _, expected = trained_with(config)
    half = tokens_at_most(config) // 2
    available = enough_for(config, Split(2, half)) + 1
    assert available < enough_for(config, Split(2, 1024))
    _, reports = fitted(config, available=available)
    (said,) = warnings(reports)
    assert "forward and backward, would take about" in said
    assert said.endswith(
        f"At most {half} tokens go through the model at a time from now on; a step learns from as much as before."
    )
    assert losses(reports) == pytest.approx(losses(expected), abs=1e-5)
    (started,) = of_kind(reports, TrainingStarted)
    assert (started.max_tokens, started.step_size) == (half, 4)


def test_checkpointing_is_next_and_changes_no_loss_either(config: FineTuningConfig) -> None:
    _, expected = trained_with(config)
    single = Split(2, LONGEST)
    available = enough_for(config, single, is_checkpointing=True) + 1
    assert available < enough_for(config, single)
    _, reports = fitted(config, available=available)
    assert warnings(reports)[-1].endswith(
        "Gradient checkpointing is switched on: activations are computed again on the way back, which takes time."
    )
    assert of_kind(reports, Notice)[-1].message == "Gradient checkpointing: on, for memory is short"
    assert losses(reports) == pytest.approx(losses(expected), abs=1e-5)


def test_when_nothing_is_left_the_error_names_figures_and_cures(config: FineTuningConfig) -> None:
    with pytest.raises(OutOfMemory) as failure:
        fitted(config, available=1_000_000)
    assert f"1 × {LONGEST} tokens, forward and backward, would take about" in failure.value.detail
    assert (
        "1 MB are left. Nothing is left to lower (one item at a time, gradient checkpointing);" in failure.value.detail
    )
    assert "lower max_length or lora_rank, set allow_4bit, or take a smaller base model." in failure.value.detail


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_checkpointing_gives_the_same_loss_and_gradients_with_dropout_on(
    architecture: str, quick_config: FineTuningConfig
) -> None:
    """Also without gradients of the embeddings' output, which are only needed by re-entrant checkpointing."""

    def once(gradient_checkpointing: bool | None) -> list[Any]:
        config = quick_config.model_copy(update={"gradient_checkpointing": gradient_checkpointing, "num_epochs": 1})
        reports: list[Any] = []
        items = examples_for(architecture, 8)
        trained = train_within_memory(
            lambda config: add_lora(make_model(architecture), config), items, [], config, report=reports.append
        )
        assert all(not parameter.grad.isnan().any() for _, parameter in trainable(trained.model))
        return [(one.train_loss, one.gradient_norm) for one in of_kind(reports, StepMetrics)]

    (plain, checkpointed) = once(False), once(True)
    assert len(plain) == 2
    for one, other in zip(plain, checkpointed, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_checkpointing_computes_layers_again_and_asks_for_no_gradient_of_the_embeddings(
    config: FineTuningConfig,
) -> None:
    asked: list[bool] = []
    computed: list[int] = []

    def load(config: FineTuningConfig) -> PeftModel:
        model = loaded(config)
        blocks = model.get_base_model().transformer.h
        blocks[0].register_forward_pre_hook(lambda module, args: asked.append(args[0].requires_grad))
        blocks[0].mlp.register_forward_pre_hook(lambda module, args: computed.append(1))
        return model

    fitted(config.model_copy(update={"gradient_checkpointing": True}), load)
    assert len(computed) > len(asked)
    assert not any(asked)
    computed.clear()
    asked.clear()
    fitted(config.model_copy(update={"gradient_checkpointing": False}), load)
    assert len(computed) == len(asked) > 0


def test_a_model_that_knows_no_checkpointing_refuses_to_be_told_to(config: FineTuningConfig) -> None:
    def load(config: FineTuningConfig) -> PeftModel:
        model = loaded(config)
        model.get_base_model().supports_gradient_checkpointing = False
        return model

    with pytest.raises(InvalidRequest, match="knows no gradient checkpointing"):
        fitted(config.model_copy(update={"gradient_checkpointing": True}), load)
    with pytest.raises(OutOfMemory, match=r"Nothing is left to lower \(one item at a time\)"):
        fitted(config, load, available=1_000_000)


class Exhausting:
    """A model whose memory runs out in passes of more than `max_tokens`, once it is armed."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.is_armed = False
        self.num_loaded = 0
        self.quantizations: list[str] = []

    def __call__(self, config: FineTuningConfig) -> PeftModel:
        self.quantizations.append(config.quantization)
        model = loaded(config)
        model.get_input_embeddings().register_forward_pre_hook(self._run_out)
        return model

    def _run_out(self, module: object, args: tuple[torch.Tensor, ...]) -> None:
        if self.is_armed and args[0].numel() > self.max_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("has_checkpoints", [True, False])
def test_memory_that_runs_out_in_the_middle_costs_neither_the_run_nor_its_result(
    has_checkpoints: bool, config: FineTuningConfig, tmp_path: Path
) -> None:
    half = tokens_at_most(config) // 2
    _, expected = trained_with(config, half)
    load, reports = Exhausting(half), []

    def report(metrics: Any) -> None:
        reports.append(metrics)
        load.is_armed |= isinstance(metrics, StepMetrics) and metrics.step == 2

    checkpoints = Checkpoints(tmp_path, keep=2, identity="run") if has_checkpoints else None
    remembered: list[int] = []
    trained = train_within_memory(
        load, TRAIN, HELD_OUT, config, checkpoints=checkpoints, report=report, remember=remembered.append
    )
    (said,) = warnings(reports)
    assert said.startswith("Memory ran out after step 2; the process had held up to ")
    assert [one.step for one in of_kind(reports, TrainingStarted)] == ([0, 2] if has_checkpoints else [0, 0])
    assert losses(reports) == pytest.approx(losses(expected), abs=1e-5)
    assert trained.outcome.num_steps == 3
    assert remembered == [0, 1]
    assert load.quantizations == ["none"]


def test_4bit_weights_are_the_last_resort_and_only_if_they_are_allowed(config: FineTuningConfig) -> None:
    class Smaller(Exhausting):
        def __call__(self, config: FineTuningConfig) -> PeftModel:
            if config.quantization == "4bit":
                self.is_armed = False
            return super().__call__(config)

    for allow_4bit in (False, True):
        load = Smaller(0)
        load.is_armed = True
        wanted = config.model_copy(update={"allow_4bit": allow_4bit})
        if not allow_4bit:
            with pytest.raises(OutOfMemory, match="set allow_4bit"):
                fitted(wanted, load)
            continue
        trained, reports = fitted(wanted, load)
        assert load.quantizations == ["none", "4bit"]
        assert trained.config == wanted.model_copy(update={"quantization": "4bit"})
        assert warnings(reports)[-1].endswith("loaded again with 4-bit weights, as allow_4bit permits.")


def test_a_model_that_is_too_large_to_be_loaded_is_tried_in_4bit(config: FineTuningConfig) -> None:
    def load(config: FineTuningConfig) -> PeftModel:
        if config.quantization == "none":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loaded(config)

    trained, reports = fitted(config.model_copy(update={"allow_4bit": True}), load)
    assert isinstance(trained, Trained)
    assert warnings(reports)[0].startswith("Memory ran out before the first batch; ")
    with pytest.raises(OutOfMemory, match="lower max_length"):
        fitted(config, load)


def test_the_model_is_really_loaded_in_4bit_and_learns_from_where_it_began(
    config: FineTuningConfig, tiny_folder: Path
) -> None:
    def load(config: FineTuningConfig) -> PeftModel:
        return add_lora(load_model(str(tiny_folder), quantization=config.quantization), config)

    config = config.model_copy(update={"allow_4bit": True})
    trained, reports = fitted(config, load, num_notches=99)
    assert trained.config.quantization == "4bit"
    assert any("4bit" in type(module).__name__ for module in trained.model.modules())
    assert any("4-bit numbers (NF4)" in one.message for one in of_kind(reports, Notice))
    first, *_, last = (one.loss for one in of_kind(reports, EvaluationMetrics))
    assert last < first


def test_an_attempt_begins_where_an_earlier_one_ended(config: FineTuningConfig) -> None:
    remembered: list[int] = []
    _, reports = fitted(config, num_notches=1, remember=remembered.append)
    (said,) = warnings(reports)
    assert said.startswith("Memory ran short in an earlier attempt. At most ")
    assert remembered == [1]
    _, reports = fitted(config, num_notches=99)
    assert warnings(reports)[-1].startswith("Memory ran short in an earlier attempt. Gradient checkpointing is ")


def test_each_death_for_memory_is_one_more_notch_for_the_next_attempt(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    assert Notches(folder, num_deaths=0).to_begin_with() == 0
    Notches(folder, num_deaths=0).remember(0)
    assert not folder.exists()
    assert Notches(folder, num_deaths=1).to_begin_with() == 1
    Notches(folder, num_deaths=1).remember(3)  # the preflight lowered two more
    assert Notches(folder, num_deaths=1).to_begin_with() == 3  # paused and resumed
    assert Notches(folder, num_deaths=2).to_begin_with() == 4
    (folder / "memory.json").write_text("{")
    assert Notches(folder, num_deaths=2).to_begin_with() == 2


def test_preference_pairs_are_fitted_too(config: FineTuningConfig) -> None:
    others = make_examples(12, seed=5, longest=60)
    pairs = [PreferencePair(one, other) for one, other in zip(TRAIN, others, strict=True)]
    config = config.model_copy(update={"method": DpoMethod()})
    reports: list[Any] = []
    train_within_memory(loaded, pairs[:8], pairs[8:], config, report=reports.append, num_notches=99)
    said = warnings(reports)
    assert "tokens go through the model at a time" in said[0]
    *_, last = [one for one in said if not one.startswith("Training never brought")]  # that is said of what was learned
    assert "Gradient checkpointing is switched on" in last
    (figures,) = of_kind(reports, Preflight)
    assert "1 × 8 preference pairs" in figures.message
    assert len(of_kind(reports, StepMetrics)) == 2


def test_nothing_to_learn_is_said_before_anything_is_tried(config: FineTuningConfig) -> None:
    with pytest.raises(NothingToLearn):
        train_within_memory(loaded, [Example([1, 2], [-100, -100])], [], config)
