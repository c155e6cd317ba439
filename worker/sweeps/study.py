"""A sweep's study: Optuna's sampler, pruner and storage for what the sweep is asked to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import Trial, TrialState

from shared.sweep_parameters import Choices, Domain, FloatRange, SweepParameters

MAX_STARTUP_TRIALS = 10  # at random, before the sampler has seen enough to learn from
REDUCTION = 3  # of the trials that reach a rung of successive halving, one in so many goes on


def open_study(storage: BaseStorage, name: str, parameters: SweepParameters, *, rung: int = 1) -> optuna.Study:
    """The study of this name, made on first use. `rung` is the first step at which a trial may be pruned."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = pruner_of(parameters, rung)
    if any(study.study_name == name for study in storage.get_all_studies()):
        return optuna.load_study(storage=storage, study_name=name, pruner=pruner)
    return optuna.create_study(storage=storage, study_name=name, pruner=pruner, direction="minimize")


def ask(study: optuna.Study, parameters: SweepParameters) -> Trial:
    """The next trial. Its random numbers follow from the seed and its own number alone: a search that goes on after a
    restart does not repeat what it has tried, and is the same again where results come in the same order."""
    study.sampler = sampler_of(parameters, len(study.get_trials(deepcopy=False)))
    return study.ask({name: distribution_of(domain) for name, domain in parameters.space.items()})


def values_of(parameters: SweepParameters, params: Mapping[str, Any]) -> dict[str, Any]:
    """What Optuna chose, as the configuration's values."""
    return {
        name: json.loads(value) if isinstance(parameters.space[name], Choices) else value
        for name, value in params.items()
        if name in parameters.space
    }


def distribution_of(domain: Domain) -> BaseDistribution:
    """Choices go by their JSON: Optuna keeps no lists."""
    if isinstance(domain, Choices):
        return CategoricalDistribution([json.dumps(value, sort_keys=True) for value in domain.values])
    if isinstance(domain, FloatRange):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    high = domain.low + (domain.high - domain.low) // domain.step * domain.step  # Optuna warns, and does the same
    return IntDistribution(domain.low, high, log=domain.log, step=domain.step)


def sampler_of(parameters: SweepParameters, number: int) -> BaseSampler:
    """For the trial of this number. The tree-structured Parzen estimator takes trials that still run for bad ones, so
    that those that run beside each other differ."""
    digest = hashlib.sha256(f"{parameters.seed}/{number}".encode()).digest()
    seed = int.from_bytes(digest[:4])
    if parameters.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=num_startup_trials(parameters), constant_liar=True)


def num_startup_trials(parameters: SweepParameters) -> int:
    """A third of a short search, so that the rest can learn from it."""
    return min(MAX_STARTUP_TRIALS, max(2, parameters.num_trials // 3))


def pruner_of(parameters: SweepParameters, rung: int) -> BasePruner:
    """Median: after some complete trials, ends those whose best loss so far is above the median of those at the same
    step. ASHA (Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020): at `rung`, and then at each
    `REDUCTION` times as many steps, the best one in `REDUCTION` goes on."""
    if parameters.pruner == "none":
        return NopPruner()
    if parameters.pruner == "asha":
        return SuccessiveHalvingPruner(min_resource=rung, reduction_factor=REDUCTION)
    return MedianPruner(n_startup_trials=max(2, min(5, parameters.num_trials // 4)), n_warmup_steps=rung - 1)


def importances_of(study: optuna.Study) -> dict[str, float]:
    """Share of each searched field in how good a trial is, by PED-ANOVA (Watanabe et al., 2023), the largest first;
    empty while too few trials are complete to tell."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len({trial.value for trial in complete}) < 3:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return {
        name: round(share, 6)
        for name, share in optuna.importance.get_param_importances(study, evaluator=evaluator).items()
    }
