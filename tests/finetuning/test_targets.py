"""Finding the layers that LoRA adapts."""

from __future__ import annotations

import time
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import OPTConfig, OPTForCausalLM

from shared.errors import TargetModulesNotFound
from tests.tiny_models import ARCHITECTURES, make_model
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
    assert find_target_modules(make_model(architecture), "auto") == expected


def test_named_layers_are_taken_as_named() -> None:
    assert find_target_modules(make_model("llama"), ["v_proj", "mlp.up_proj", "v_proj"]) == ["mlp.up_proj", "v_proj"]


@pytest.mark.parametrize("wrong", ["q_proj", "lm_head", "wte", "proj", "*"])
def test_a_name_that_fits_no_layer_is_refused_with_the_possible_names(wrong: str) -> None:
    with pytest.raises(TargetModulesNotFound) as caught:
        find_target_modules(make_model("gpt2"), ["c_attn", wrong])
    assert f"'{wrong}'" in caught.value.detail
    assert "c_attn, c_fc, c_proj" in caught.value.detail


def adapted_by_peft(model: Any, target_modules: Any) -> set[str]:
    """Paths of the layers that PEFT itself adapts."""
    adapted = get_peft_model(
        model, LoraConfig(target_modules=target_modules, fan_in_fan_out=hasattr(model, "transformer"))
    )
    prefix = "base_model.model."
    return {path.removeprefix(prefix) for path, module in adapted.named_modules() if hasattr(module, "lora_A")}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_linear_means_what_it_means_to_peft(architecture: str) -> None:
    found = find_target_modules(make_model(architecture), "all-linear")
    assert set(found) == adapted_by_peft(make_model(architecture), "all-linear")
    assert len(found) == {"gpt2": 8, "llama": 14, "t5": 36}[architecture]


def test_all_linear_includes_layers_outside_the_blocks_and_auto_does_not() -> None:
    def projected() -> OPTForCausalLM:
        return OPTForCausalLM(
            OPTConfig(
                vocab_size=64, hidden_size=32, word_embed_proj_dim=16, ffn_dim=64, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=32,
            )
        )  # fmt: skip

    found = find_target_modules(projected(), "all-linear")
    assert {"model.decoder.project_in", "model.decoder.project_out"} < set(found)
    assert set(found) == adapted_by_peft(projected(), "all-linear")
    assert "project_in" not in find_target_modules(projected(), "auto")
    assert find_target_modules(projected(), ["project_in"]) == ["project_in"]


@pytest.mark.parametrize(
    ("architecture", "pattern", "number"),
    [
        ("gpt2", r".*\.(c_attn|c_fc)", 4),
        ("gpt2", r"transformer\.h\.0\.mlp\.c_(fc|proj)", 2),
        ("llama", r".*layers\.[1-9]\..*_proj", 7),
        ("t5", r".*decoder.*(SelfAttention|EncDecAttention).*(q|v)$", 8),
    ],
)
def test_a_regular_expression_must_match_whole_paths_as_for_peft(architecture: str, pattern: str, number: int) -> None:
    found = find_target_modules(make_model(architecture), pattern)
    assert len(found) == number
    assert set(found) == adapted_by_peft(make_model(architecture), pattern)


def test_a_regular_expression_adapts_linear_layers_only_and_never_the_head() -> None:
    assert find_target_modules(make_model("llama"), ".*") == find_target_modules(make_model("llama"), "all-linear")


@pytest.mark.parametrize("pattern", ["c_attn", "lm_head", r".*wte", r"h\.0\..*", ".*ATTN.*", "transformer"])
def test_a_regular_expression_that_matches_no_whole_path_is_refused_with_the_possible_names(pattern: str) -> None:
    with pytest.raises(TargetModulesNotFound, match=r"a path looks like 'transformer\.h\.0\.attn\.c_attn'") as caught:
        find_target_modules(make_model("gpt2"), pattern)
    assert "possible are c_attn, c_fc, c_proj" in caught.value.detail
    assert caught.value.param == "target_modules"


def test_a_regular_expression_that_never_ends_is_ended() -> None:
    started = time.process_time()
    with pytest.raises(TargetModulesNotFound, match="too long"):
        find_target_modules(make_model("gpt2"), r"(.*)*x")
    assert time.process_time() - started < 1, "it ran here and not in a child"
