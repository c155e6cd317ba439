"""LoRA's options: which layers, rank-stabilised scaling, magnitudes apart from directions."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from shared.errors import PublicationRefused
from shared.training_config import FineTuningConfig
from tests.finetuning.conftest import examples_for
from tests.finetuning.serving import make_base, peft_answer, served_answer
from tests.tiny_models import ARCHITECTURES, make_tokenizer
from worker.adapter_files import MANIFEST, WEIGHTS, Manifest, list_files
from worker.finetuning.checkpoints import Checkpoints, trainable
from worker.finetuning.loop import train
from worker.finetuning.lora import add_lora
from worker.finetuning.publication import Lineage, stage, verify

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT 0.21's own

LINEAGE = Lineage("demo", "text", "f" * 64, {}, {}, "ftjob-1", 1.0)
OPTIONS: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "both, on all linear layers": {"use_rslora": True, "use_dora": True, "target_modules": "all-linear"},
    "a regular expression": {"target_modules": r".*\.[01]\..*\.(c_attn|c_proj|[qv]_proj|q|wo)"},
}


def config_for(**options: Any) -> FineTuningConfig:
    defaults: dict[str, Any] = {
        "learning_rate": 2e-2, "num_epochs": 2, "batch_size": 2, "gradient_accumulation_steps": 1, "lora_rank": 4,
        "lora_alpha": 8,
    }  # fmt: skip
    return FineTuningConfig(model_name="demo", **{**defaults, **options})


def trained(architecture: str, config: FineTuningConfig, **more: Any) -> PeftModel:
    model = add_lora(make_base(architecture), config)
    train(model, examples_for(architecture, 4), [], config, **more)
    return model


@pytest.mark.parametrize(
    ("architecture", "options"),
    [*((one, "both, on all linear layers") for one in ARCHITECTURES), ("gpt2", "dora"), ("llama", "rslora"),
     ("t5", "a regular expression")],
)  # fmt: skip
def test_an_adapter_with_any_options_is_published_and_served_as_peft_would(
    architecture: str, options: str, tmp_path: Path
) -> None:
    model = trained(architecture, config_for(**OPTIONS[options]))
    probe = examples_for(architecture, 1)[0]
    prompt = probe.input_ids[:-1]
    stage(model, make_tokenizer(), tmp_path / "staged", LINEAGE)
    verify(model, tmp_path / "staged", probe)
    loaded = PeftModel.from_pretrained(make_base(architecture), str(tmp_path / "staged"))
    served = served_answer(make_base(architecture), tmp_path / "staged", prompt)
    assert served == peft_answer(loaded, prompt) == peft_answer(model, prompt)
    assert served != served_answer(make_base(architecture), None, prompt), "the adapter changes nothing"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_layers_are_those_that_peft_makes(architecture: str, options: dict[str, Any]) -> None:
    config = config_for(**{"target_modules": "all-linear", **options})
    ours = add_lora(make_base(architecture), config)
    lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, fan_in_fan_out=architecture == "gpt2",
                      **{"target_modules": "all-linear", **options})  # fmt: skip
    base = make_base(architecture)
    torch.manual_seed(config.seed)
    theirs = get_peft_model(base, lora)
    expected = dict(trainable(theirs))
    assert {name for name, _ in trainable(ours)} == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in trainable(ours))


def test_rank_stabilised_scaling_divides_by_the_root_of_the_rank() -> None:
    for options, divisor in (({}, 16), ({"use_rslora": True}, math.sqrt(16))):
        model = add_lora(make_base("llama"), config_for(lora_rank=16, lora_alpha=8, **options))
        scales = {module.scaling["default"] for module in model.modules() if hasattr(module, "lora_A")}
        assert scales == {8 / divisor}


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_dora_learns_magnitudes_and_resumes_with_the_same_bits(architecture: str, tmp_path: Path) -> None:
    config = config_for(use_dora=True)
    fresh = {name: weight.detach().clone() for name, weight in trainable(add_lora(make_base(architecture), config))}
    undisturbed = trained(architecture, config)
    learned = dict(trainable(undisturbed))
    magnitudes = [name for name in learned if "magnitude" in name]
    assert magnitudes
    assert not any(torch.equal(learned[name], fresh[name]) for name in magnitudes)
    num_asked = 0

    def should_stop() -> bool:
        nonlocal num_asked
        num_asked += 1
        return num_asked > 2

    trained(architecture, config, checkpoints=Checkpoints(tmp_path, keep=1, identity="run"), should_stop=should_stop)
    resumed = trained(architecture, config, checkpoints=Checkpoints(tmp_path, keep=1, identity="run"))
    assert all(torch.equal(weight, learned[name]) for name, weight in trainable(resumed))


def _drop(tensors: dict[str, torch.Tensor], name: str) -> None:
    del tensors[name]


def _spoil(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name][0] = float("nan")


def _alter(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] *= 2


@pytest.mark.parametrize(("change", "reason"), [(_drop, "lacks"), (_spoil, "not finite"), (_alter, "do not answer")])
def test_wrong_magnitudes_are_refused_with_the_reason(
    change: Callable[[dict[str, torch.Tensor], str], None], reason: str, tmp_path: Path
) -> None:
    model = trained("gpt2", config_for(use_dora=True))
    folder = tmp_path / "staged"
    stage(model, make_tokenizer(), folder, LINEAGE)
    tensors = load_file(folder / WEIGHTS)
    change(tensors, next(name for name in sorted(tensors) if "magnitude" in name))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(manifest.model_copy(update={"files": list_files(folder)}).to_json())
    with pytest.raises(PublicationRefused, match=reason):
        verify(model, folder, examples_for("gpt2", 1)[0])
