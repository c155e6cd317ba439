"""Makes a training fit into memory: what is lowered, in which order, and how it goes on after it ran out."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from shared.errors import InvalidRequest, NothingToLearn, OutOfMemory
from shared.storage import make_folder, publish_file
from worker.base_models.formats import Learnable
from worker.finetuning.batches import Split, fit
from worker.finetuning.checkpoints import Checkpoints, trainable, writing
from worker.finetuning.learner import Learner
from worker.finetuning.loop import Snapshot, memory_errors, train
from worker.finetuning.memory import peak_bytes, return_freed_memory
from worker.finetuning.preflight import heaviest, pass_lengths, preflight, size
from worker.finetuning.reports import Metrics, Notice, Report, StepMetrics, TrainingOutcome, TrainingStarted

if TYPE_CHECKING:
    from shared.training_config import FineTuningConfig, Quantization

Load = Callable[["FineTuningConfig"], PeftModel]


@dataclass(frozen=True)
class Frugality:
    """What is done to need less memory. No notch changes what a step learns from; 4-bit weights change the base model,
    and so are the last resort. `split` is None until the model is there."""

    split: Split | None
    is_checkpointing: bool
    quantization: Quantization

    @classmethod
    def of(cls, config: FineTuningConfig) -> Frugality:
        """What the configuration asks for."""
        return cls(None, config.gradient_checkpointing is True, config.quantization)

    def lowered(
        self, items: Sequence[Learnable], config: FineTuningConfig, *, can_checkpoint: bool
    ) -> Frugality | None:
        """One notch down: half the tokens in a pass, until one item is left in it; then gradient checkpointing; then
        4-bit weights. None if nothing is left."""
        if self.split is not None:
            is_joined = bool(self.split.is_joined)
            step_size = config.batch_size * config.gradient_accumulation_steps
            batch = heaviest(items, self.split, is_joined=is_joined, at_once=step_size)
            tokens = sum(pass_lengths(batch, is_joined=is_joined))
            least = max(sum(pass_lengths([item], is_joined=is_joined)) for item in items)
            if tokens > least:
                return replace(self, split=replace(self.split, max_tokens=max(tokens // 2, least)))
            if can_checkpoint and config.gradient_checkpointing is None and not self.is_checkpointing:
                return replace(self, is_checkpointing=True)
        if config.allow_4bit and self.quantization != "4bit":
            return replace(self, quantization="4bit")
        return None


class Notches:
    """How many notches a job's next attempt begins with: those of the attempt before, and one more for each attempt
    that the kernel has killed for lack of memory since. Kept beside its checkpoints, so that an interrupted run goes
    on with the same arithmetic."""

    def __init__(self, folder: Path, *, num_deaths: int) -> None:
        self._path = folder / "memory.json"
        self._num_deaths = num_deaths

    def to_begin_with(self) -> int:
        try:
            kept = json.loads(self._path.read_text())
            return int(kept["num_notches"]) + self._num_deaths - int(kept["num_deaths"])
        except (OSError, ValueError, KeyError, TypeError):
            return self._num_deaths

    def remember(self, num_notches: int) -> None:
        """Raises `DiskFull`."""
        if num_notches:
            staged = self._path.with_suffix(".staged")
            with writing():
                make_folder(self._path.parent)
                staged.write_text(json.dumps({"num_notches": num_notches, "num_deaths": self._num_deaths}))
                publish_file(staged, self._path)


@dataclass(frozen=True)
class Trained:
    """The model as it was trained in the end; `config` says in which quantization, and `split` how much went through
    it at a time."""

    model: PeftModel
    outcome: TrainingOutcome
    config: FineTuningConfig
    split: Split | None = None


def train_within_memory(
    load: Load,
    train_items: Sequence[Learnable],
    validation_items: Sequence[Learnable],
    config: FineTuningConfig,
    *,
    checkpoints: Checkpoints | None = None,
    report: Report = lambda metrics: None,
    snapshot: Snapshot = lambda model, config, position: None,
    should_stop: Callable[[], bool] = lambda: False,
    available: int | None = None,
    num_notches: int = 0,
    remember: Callable[[int], None] = lambda num_notches: None,
) -> Trained:
    """Trains the model that `load(config)` gives, after a preflight, with as much thrift as it takes to fit.

    Where memory runs out, before the first step or in the middle, one notch is lowered, said, and training goes on from
    the last checkpoint, or without any from the start. `load` may be called again, with 4-bit weights; nobody else
    should hold the model then. `num_notches` are lowered beforehand; `remember` is told their number whenever it grows,
    for a later attempt to start with. `available` bytes (default: what is left) must do.

    Raises as `train` does, and `OutOfMemory` with figures and advice once nothing is left to lower.
    """
    run = _Run(load, train_items, validation_items, config, report)
    while True:
        try:
            with memory_errors():
                run.prepare(num_notches)
                remember(run.num_lowered)
                run.rehearse(available, should_stop)
                return run.train(checkpoints, snapshot, should_stop)
        except OutOfMemory as error:
            if run.is_training and PartialState().num_processes > 1:
                raise  # the other processes wait for this one's gradients, and cannot be told
            reason = run.what_happened(error)
        run.lower(reason)


class _Run:
    """One training's model, and how thriftily it is trained at the moment."""

    def __init__(
        self,
        load: Load,
        train_items: Sequence[Learnable],
        validation_items: Sequence[Learnable],
        config: FineTuningConfig,
        report: Report,
    ) -> None:
        self.num_lowered = 0
        self.is_training = False
        self._load = load
        self._train_items = train_items
        self._validation_items = validation_items
        self._wanted = config
        self._report = report
        self._frugality = Frugality.of(config)
        self._model: PeftModel | None = None
        self._start: dict[str, Tensor] | None = None
        self._last_step = 0

    def prepare(self, num_notches: int) -> None:
        """The model, with the weights of the start; `num_notches` lowered, if fewer have been."""
        self.is_training = False
        self._make_ready()
        while self.num_lowered < num_notches and (lower := self._next_notch()) is not None:
            self._take(lower, "Memory ran short in an earlier attempt.")
            self._make_ready()

    def rehearse(self, available: int | None, should_stop: Callable[[], bool]) -> None:
        """The preflight."""
        learner = Learner(self.model, self.config, self._frugality.split)
        with learner.running():
            has_fitted = preflight(
                learner,
                self._train_items,
                self._validation_items,
                available=available,
                report=self._report,
                should_stop=should_stop,
            )
        if has_fitted:
            self._report(Notice(_why_checkpointing(self._frugality, self._wanted)))

    def train(self, checkpoints: Checkpoints | None, snapshot: Snapshot, should_stop: Callable[[], bool]) -> Trained:
        """From the last checkpoint on, if there is one."""
        self.is_training = True
        outcome = train(
            self.model,
            self._train_items,
            self._validation_items,
            self.config,
            split=self._frugality.split,
            checkpoints=checkpoints,
            report=self._watched,
            snapshot=snapshot,
            should_stop=should_stop,
        )
        if self._frugality.is_checkpointing:
            _base(self.model).activation_checkpointing_disable()
        return Trained(self.model, outcome, self.config, self._frugality.split)

    def what_happened(self, error: OutOfMemory) -> str:
        """In one sentence. (The error itself must not be kept: it holds what the failed pass computed.)"""
        if error.detail != OutOfMemory.cure:
            return error.detail
        place = f"after step {self._last_step}" if self.is_training else "before the first batch"
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return f"Memory ran out {place}; the process had held up to {size(peak_bytes(device))}."

    def lower(self, reason: str) -> None:
        """One notch, and says so with the reason. Raises `OutOfMemory` if there is none."""
        lower = self._next_notch()
        if lower is None:
            raise OutOfMemory(f"{reason} {_advice(self._frugality, self._wanted)}")
        self._take(lower, reason)
        _free(self._model)

    @property
    def model(self) -> PeftModel:
        if self._model is None:
            self._model = self._load(self.config)
        return self._model

    @property
    def config(self) -> FineTuningConfig:
        """The configuration, with the quantization that is in use."""
        quantization = self._frugality.quantization
        if quantization == self._wanted.quantization:
            return self._wanted
        return self._wanted.model_copy(update={"quantization": quantization})

    def _make_ready(self) -> None:
        if self._start is None:
            self._start = _weights(self.model)
        for name, parameter in trainable(self.model):
            parameter.data.copy_(self._start[name])
        if self._frugality.is_checkpointing:
            _checkpoint_gradients(self.model)
        if self._frugality.split is None:
            learner = Learner(self.model, self.config)
            split = replace(learner.split, is_joined=learner.is_joined)
            self._frugality = replace(self._frugality, split=split)
            limit = self._wanted.max_length
            self._train_items = learner.learnable(fit(self._train_items, limit, self.model.config))
            self._validation_items = learner.learnable(fit(self._validation_items, limit, self.model.config))
        if not self._train_items:
            raise NothingToLearn

    def _next_notch(self) -> Frugality | None:
        can_checkpoint = self._model is not None and _base(self._model).supports_gradient_checkpointing
        return self._frugality.lowered(self._train_items, self._wanted, can_checkpoint=can_checkpoint)

    def _take(self, lower: Frugality, reason: str) -> None:
        self._report(Notice(f"{reason} {_change(self._frugality, lower)}", "warn"))
        if lower.quantization != self._frugality.quantization:
            self._model = None
        self._frugality = lower
        self.num_lowered += 1

    def _watched(self, metrics: Metrics) -> None:
        if isinstance(metrics, TrainingStarted | StepMetrics):
            self._last_step = metrics.step
        self._report(metrics)


def _checkpoint_gradients(model: PeftModel) -> None:
    """Layers keep what goes into them and compute the rest again on the way back.

    Only re-entrant checkpointing needs what transformers then switches on, a gradient of the frozen embeddings'
    output, with which the first layer's way back would be computed in vain.
    """
    base = _base(model)
    if not base.supports_gradient_checkpointing:
        raise InvalidRequest("This base model knows no gradient checkpointing.", param="gradient_checkpointing")
    base.activation_checkpointing_enable({"use_reentrant": False})
    base.disable_input_require_grads()
    if model.device.type == "cpu":
        return_freed_memory()


def _base(model: PeftModel) -> PreTrainedModel:
    base: Any = model.get_base_model()
    assert isinstance(base, PreTrainedModel)  # noqa: S101 - add_lora was given one
    return base


def _free(model: PeftModel | None) -> None:
    """What a failed pass has left behind."""
    for parameter in model.parameters() if model is not None else ():
        parameter.grad = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _change(before: Frugality, after: Frugality) -> str:
    """What one notch changes, in words."""
    if after.quantization != before.quantization:
        return "The base model is loaded again with 4-bit weights, as allow_4bit permits."
    if after.is_checkpointing != before.is_checkpointing:
        return (
            "Gradient checkpointing is switched on: activations are computed again on the way back, which takes time."
        )
    tokens = after.split.max_tokens if after.split else 0
    return (
        f"At most {tokens:,} tokens go through the model at a time from now on; a step learns from as much as before."
    )


def _why_checkpointing(frugality: Frugality, config: FineTuningConfig) -> str:
    if config.gradient_checkpointing is not None:
        return f"Gradient checkpointing: {'on' if config.gradient_checkpointing else 'off'}, as configured"
    if frugality.is_checkpointing:
        return "Gradient checkpointing: on, for memory is short"
    return "Gradient checkpointing: off, for the longest batch fits without it"


def _advice(frugality: Frugality, config: FineTuningConfig) -> str:
    done = ["one item at a time"] if frugality.split is not None else []
    done += ["gradient checkpointing"] if frugality.is_checkpointing else []
    done += ["4-bit weights"] if frugality.quantization == "4bit" else []
    advice = ["lower max_length or lora_rank"]
    if config.gradient_checkpointing is False:
        advice.append("leave gradient_checkpointing out")
    if frugality.quantization != "4bit":
        advice.append("set allow_4bit")
    tried = f"Nothing is left to lower ({', '.join(done)}); " if done else ""
    return f"{tried}{', '.join(advice)}, or take a smaller base model."


def _weights(model: PeftModel) -> dict[str, Tensor]:
    return {name: parameter.detach().cpu().clone() for name, parameter in trainable(model)}
