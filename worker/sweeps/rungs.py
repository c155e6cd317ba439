"""Rungs: the quarters of an epoch at which trials are compared, whatever their batches are."""

from __future__ import annotations

from shared.sweep_parameters import SweepParameters
from shared.training_config import FineTuningConfig

RUNGS_AN_EPOCH = 4
_SLACK = 0.1  # of a rung: the steps of an epoch seldom divide by four
_FEW_EPOCHS = 4  # from so many on, the losses after each epoch are enough to prune by


def rung_of(step: int, total_steps: int, num_epochs: int) -> int:
    """The last rung that a training has reached; 0: none."""
    return int(RUNGS_AN_EPOCH * num_epochs * step / total_steps + _SLACK)


def first_rung(parameters: SweepParameters) -> int:
    """The first one at which every trial has a loss: after an epoch, or a quarter where there are losses between."""
    has_interval = parameters.config.evaluation_interval_steps is not None
    is_fine = has_interval or "evaluation_interval_steps" in parameters.space or _lacks_losses(parameters)
    return 1 if is_fine else RUNGS_AN_EPOCH


def with_evaluations(parameters: SweepParameters, config: FineTuningConfig, num_examples: int) -> FineTuningConfig:
    """The trial's configuration, with a loss at each rung where those after each epoch are too few to prune by.
    `num_examples` are learned in an epoch."""
    if not num_examples or not _lacks_losses(parameters):
        return config
    num_steps = -(-num_examples // (config.batch_size * config.gradient_accumulation_steps))
    return config.model_copy(update={"evaluation_interval_steps": max(1, num_steps // RUNGS_AN_EPOCH)})


def _lacks_losses(parameters: SweepParameters) -> bool:
    if parameters.pruner == "none" or "evaluation_interval_steps" in parameters.space:
        return False
    if parameters.config.evaluation_interval_steps is not None:
        return False
    epochs = parameters.space.get("num_epochs")
    fewest = parameters.config.num_epochs if epochs is None else min(epochs.edges())
    return bool(fewest < _FEW_EPOCHS)
