"""What a sweep may be asked to do: a search space that makes sense, or a sentence that says why it does not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from shared.sweep_parameters import DEFAULT_SPACE, SweepParameters


def parameters(**more: Any) -> SweepParameters:
    return SweepParameters.model_validate({"setup_job_id": "setup-1", **more})


def test_the_default_searches_four_fields() -> None:
    assert parameters().space == DEFAULT_SPACE
    assert SweepParameters.model_validate(parameters().model_dump(mode="json")) == parameters()


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "at least 1 item"),
        ({"rank": {"type": "int", "low": 1, "high": 2}}, "space names rank, which is no field"),
        ({"model_name": {"type": "choices", "values": ["demo"]}}, "space names model_name"),
        ({"max_length": {"type": "int", "low": 8, "high": 16}}, "space names max_length"),
        ({"method": {"type": "choices", "values": [{"type": "dpo"}]}}, "space names method"),
        ({"learning_rate": {"type": "float", "low": 1e-5, "high": 10}}, "learning_rate cannot be 10.0: Input should"),
        ({"lora_rank": {"type": "int", "low": 0, "high": 8}}, "lora_rank cannot be 0"),
        ({"lora_rank": {"type": "int", "low": 8, "high": 4}}, "low must not be above high"),
        ({"lora_rank": {"type": "int", "low": 0, "high": 4, "log": True}}, "log needs a low above 0"),
        ({"lora_rank": {"type": "int", "low": 1, "high": 4, "log": True, "step": 2}}, "log and step exclude"),
        ({"lora_rank": {"type": "choices", "values": [4, 8, 4]}}, "names one value twice"),
        ({"lora_rank": {"type": "float", "low": 4.0, "high": 8.0}}, "no configuration of the space is possible"),
        ({"target_modules": {"type": "choices", "values": ["all-linear", "("]}}, 'target_modules cannot be "("'),
        ({"learning_rate": {"type": "float", "low": float("nan"), "high": 1.0}}, "finite number"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_with_the_reason(space: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace("(", r"\(")):
        parameters(space=space)


def test_values_that_never_go_together_are_refused_and_those_that_sometimes_do_are_searched() -> None:
    dora = {"use_dora": {"type": "choices", "values": [True]}}
    with pytest.raises(ValidationError, match="no configuration of the space is possible: use_dora does not work"):
        parameters(space=dora, config={"quantization": "8bit"})
    both = parameters(space={**dora, "quantization": {"type": "choices", "values": ["none", "8bit"]}})
    assert both.config_of({"use_dora": True, "quantization": "none"}).use_dora
    with pytest.raises(ValidationError, match="use_dora does not work"):
        both.config_of({"use_dora": True, "quantization": "8bit"})
