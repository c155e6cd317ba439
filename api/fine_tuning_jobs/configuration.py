"""OpenAI's words for a training, in ours.

| OpenAI | here |
| --- | --- |
| `n_epochs` | `num_epochs`; `auto` is our default of 3: how many examples there are is not known before the setup |
| `batch_size` | the examples of one optimiser step: `batch_size` × `gradient_accumulation_steps`; `auto` is 4 × 4 |
| `learning_rate_multiplier` | times our default learning rate of 2e-4; `auto` is 1 |
| `method` | `method`; DPO's `beta` is its `beta`, `auto` is 0.1 |
| `seed` | `seed`; 0 where it is left out |
| `integrations` of the type `wandb` | the tracker `wandb` |
| `validation_file` | `validation_document_ids`; without one nothing is held out, unless `lora` asks for it |
| `suffix` | the adapter's name, white space as `-`; `default` where it is left out |
| `lora` | our other fields: of `FineTuningConfig`, `promotion`, and `chunk_size`, `chunk_overlap`, `validation_split` |

What is said twice, by a hyperparameter and under `lora`, is refused.
"""

from __future__ import annotations

import re
from typing import Any

from api.fine_tuning.schemas import config_of
from api.fine_tuning_jobs.requests import SETUP_OPTIONS, CreateRequest, DpoHyperparameters, Hyperparameters
from api.validation import validated
from shared.errors import InvalidRequest
from shared.openai_training import OpenAITraining
from shared.setup_parameters import ADAPTER_NAME, SetupParameters
from shared.training_config import FineTuningConfig

DEFAULTS = FineTuningConfig()
_SAME_IN_LORA = {
    "n_epochs": ("num_epochs",),
    "batch_size": ("batch_size", "gradient_accumulation_steps"),
    "learning_rate_multiplier": ("learning_rate",),
}


def setup_parameters(request: CreateRequest, model: str) -> SetupParameters:
    """What the setup is asked to do, the configuration of the training included."""
    values = {
        "document_ids": [request.training_file],
        "adapter": adapter_name(request.suffix) or "default",
        "config": training_config(request, model),
        **_setup_options(request),
    }
    if request.validation_file is not None:
        values["validation_document_ids"] = [request.validation_file]
    return validated(SetupParameters, values)


def training_config(request: CreateRequest, model: str) -> FineTuningConfig:
    """See the table above."""
    given = asked_hyperparameters(request)
    lora = {} if request.lora is None else config_of(request.lora)
    _refuse_what_is_said_twice(given, lora)
    values = {**lora, **_in_our_words(given), "model_name": model, "method": _method(request, given)}
    if request.seed is not None:
        values["seed"] = request.seed
    if request.integrations:
        values["trackers"] = tuple(dict.fromkeys([*lora.get("trackers", ()), "wandb"]))
    return validated(FineTuningConfig, values)


def asked_hyperparameters(request: CreateRequest) -> Hyperparameters:
    """The method's, filled up with the deprecated ones; `InvalidRequest` where the two differ."""
    nested = None if request.method is None else request.method.hyperparameters
    kind = DpoHyperparameters if request.method is not None and request.method.type == "dpo" else Hyperparameters
    inner, outer = _given(nested), _given(request.hyperparameters)
    for name in inner.keys() & outer.keys():
        if inner[name] != outer[name]:
            raise InvalidRequest(
                f"'{name}' is given in method and in hyperparameters, with different values; give it in method.",
                param=f"hyperparameters.{name}",
            )
    return kind.model_validate({**outer, **inner})


def adapter_name(suffix: str | None) -> str | None:
    """`suffix` as the name of an adapter; `InvalidRequest` if it holds what no name can."""
    name = None if suffix is None else re.sub(r"\s+", "-", suffix.strip())
    if name is not None and not re.fullmatch(ADAPTER_NAME, name):
        raise InvalidRequest(
            "The suffix becomes the adapter's name: take letters, digits, '-', '_' and '.', a letter or a digit first.",
            param="suffix",
        )
    return name


def shown(request: CreateRequest, parameters: SetupParameters) -> OpenAITraining:
    """What the job's answers are to show again."""
    kind, hyperparameters = parameters.config.method.type, asked_hyperparameters(request).shown()
    return OpenAITraining(
        training_file=request.training_file,
        validation_file=request.validation_file,
        suffix=adapter_name(request.suffix),
        user_provided_suffix=request.suffix,
        seed=parameters.config.seed,
        hyperparameters={name: one for name, one in hyperparameters.items() if name != "beta"},
        method={"type": kind, kind: {"hyperparameters": hyperparameters}},
        integrations=tuple(one.model_dump(mode="json") for one in request.integrations or ()),
        metadata=request.metadata,
    )


def split_batch(batch_size: int) -> tuple[int, int]:
    """(`batch_size`, `gradient_accumulation_steps`) whose product is OpenAI's batch: the largest part of it that is no
    larger than our default goes through the model at once."""
    at_once = max(size for size in range(1, DEFAULTS.batch_size + 1) if batch_size % size == 0)
    return at_once, batch_size // at_once


def _given(hyperparameters: Hyperparameters | None) -> dict[str, Any]:
    return {} if hyperparameters is None else hyperparameters.model_dump(exclude_none=True)


def _in_our_words(given: Hyperparameters) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if given.n_epochs is not None:
        values["num_epochs"] = given.n_epochs
    if given.batch_size is not None:
        values["batch_size"], values["gradient_accumulation_steps"] = split_batch(given.batch_size)
    if given.learning_rate_multiplier is not None:
        values["learning_rate"] = given.learning_rate_multiplier * DEFAULTS.learning_rate
    return values


def _method(request: CreateRequest, given: Hyperparameters) -> dict[str, Any]:
    if request.method is None or request.method.type == "supervised":
        return {"type": "supervised"}
    beta = given.beta if isinstance(given, DpoHyperparameters) else None
    return {"type": "dpo"} if beta is None else {"type": "dpo", "beta": beta}


def _setup_options(request: CreateRequest) -> dict[str, Any]:
    options = {} if request.lora is None else request.lora.model_dump(include=set(SETUP_OPTIONS), exclude_unset=True)
    is_stopped_early = request.lora is not None and request.lora.early_stopping_patience is not None
    if request.validation_file is None and not is_stopped_early:
        options.setdefault("validation_split", 0.0)
    return options


def _refuse_what_is_said_twice(given: Hyperparameters, lora: dict[str, Any]) -> None:
    for name in _given(given):
        for same in _SAME_IN_LORA.get(name, ()):
            if same in lora:
                raise InvalidRequest(
                    f"'{same}' under lora and the hyperparameter '{name}' say the same; give one.", param=f"lora.{same}"
                )
