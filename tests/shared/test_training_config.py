"""What a training's configuration refuses, and with which sentence."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from shared.training_config import FineTuningConfig


@pytest.mark.parametrize(
    "wanted", [None, "auto", "all-linear", ["q_proj"], ["q_proj", "mlp.up_proj"], r".*\.(q|v)_proj"]
)
def test_target_modules_may_be_found_named_or_matched(wanted: Any) -> None:
    config = FineTuningConfig(target_modules=wanted)
    assert config.target_modules == (tuple(wanted) if isinstance(wanted, list) else wanted)
    assert FineTuningConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ([], "'all-linear', a list of names"),
        ([""], "'all-linear', a list of names"),
        (["q_proj", 3], "'all-linear', a list of names"),
        (7, "'all-linear', a list of names"),
        ({"q_proj": True}, "'all-linear', a list of names"),
        ("", "1 to 500 characters"),
        ("x" * 501, "1 to 500 characters"),
        ("*_proj", "not a valid regular expression from character 1"),
        (r".*(q_proj", "not a valid regular expression from character 3"),
        (r"(?P<x>a)(?P=y)", "not a valid regular expression"),
        ("a{99999999999999999999}", "repeats or nests too much"),
    ],
)
def test_other_target_modules_are_refused_with_one_sentence(wrong: Any, reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        FineTuningConfig(target_modules=wrong)
    (complaint,) = caught.value.errors()
    assert complaint["loc"] == ("target_modules",)
    assert reason in complaint["msg"]


@pytest.mark.parametrize("wanted", [["lm_head"], ("embed_tokens", "lm_head"), "lm_head"])
def test_modules_to_save_are_refused_because_they_could_not_be_served(wanted: Any) -> None:
    with pytest.raises(ValidationError, match=r"cannot be served.*target_modules") as caught:
        FineTuningConfig(modules_to_save=wanted)
    assert [one["loc"] for one in caught.value.errors()] == [("modules_to_save",)]


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_no_modules_to_save_are_none(nothing: Any) -> None:
    assert FineTuningConfig(modules_to_save=nothing).modules_to_save is None


def test_dora_on_eight_bits_is_refused_with_the_reason() -> None:
    with pytest.raises(ValidationError, match="use_dora does not work with quantization '8bit'"):
        FineTuningConfig(use_dora=True, quantization="8bit")
    assert FineTuningConfig(use_dora=True, quantization="4bit").use_dora
    assert FineTuningConfig(use_rslora=True, quantization="8bit").use_rslora
