"""Finding the layers that LoRA adapts."""

from __future__ import annotations

import pytest

from shared.errors import TargetModulesNotFound
from tests.tiny_models import make_model
from worker.finetuning.targets import find_target_modules


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("gpt2", ["c_attn", "c_fc", "c_proj"]),
        ("llama", ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]),
        ("t5", ["k", "o", "q", "v", "wi_0", "wi_1", "wo"]),
    ],
)
def test_all_linear_layers_of_the_blocks_are_found_without_the_head(architecture: str, expected: list[str]) -> None:
    assert find_target_modules(make_model(architecture), None) == expected


def test_named_layers_are_taken_as_named() -> None:
    assert find_target_modules(make_model("llama"), ["v_proj", "mlp.up_proj", "v_proj"]) == ["mlp.up_proj", "v_proj"]


@pytest.mark.parametrize("wrong", ["q_proj", "lm_head", "wte", "proj", "*"])
def test_a_name_that_fits_no_layer_is_refused_with_the_possible_names(wrong: str) -> None:
    with pytest.raises(TargetModulesNotFound) as caught:
        find_target_modules(make_model("gpt2"), ["c_attn", wrong])
    assert f"'{wrong}'" in caught.value.detail
    assert "c_attn, c_fc, c_proj" in caught.value.detail
