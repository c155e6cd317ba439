"""LoRA on bases that bitsandbytes quantized, on small models of real architectures."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.utils.integrations import dequantize_module_weight
from transformers.pytorch_utils import Conv1D

from shared.errors import InvalidRequest
from shared.training_config import FineTuningConfig, Quantization
from tests.finetuning.conftest import examples_for
from tests.finetuning.serving import make_base, peft_answer, served_answer
from tests.tiny_models import ARCHITECTURES, make_model, make_tokenizer
from worker.base_models.formats import Example
from worker.base_models.loading import load_model
from worker.base_models.quantization import keep_trainable
from worker.finetuning.checkpoints import Checkpoints, trainable
from worker.finetuning.loop import train
from worker.finetuning.lora import add_lora, load_lora, precision_of
from worker.finetuning.publication import Lineage, stage, verify
from worker.finetuning.reports import StepMetrics
from worker.finetuning.targets import find_target_modules

KINDS: tuple[Quantization, ...] = ("8bit", "4bit")
LAYERS = {"8bit": Linear8bitLt, "4bit": Linear4bit}
LINEAGE = Lineage("demo", "text", "f" * 64, {}, {}, "ftjob-1", 1.0)
CPU, T4, A100, H100 = None, (7, 5), (8, 0), (9, 0)

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT 0.21's own
every_kind_of_every_architecture = pytest.mark.parametrize(
    ("architecture", "quantization"), [(one, kind) for one in ARCHITECTURES for kind in KINDS]
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Base models on disk."""
    places = {one: tmp_path_factory.mktemp("base") / one for one in ARCHITECTURES}
    for architecture, folder in places.items():
        make_base(architecture).save_pretrained(folder)
    return {architecture: str(folder) for architecture, folder in places.items()}


def config_for(folder: str, quantization: Quantization, **changes: Any) -> FineTuningConfig:
    defaults: dict[str, Any] = {
        "learning_rate": 2e-2, "num_epochs": 3, "batch_size": 2, "gradient_accumulation_steps": 1, "lora_rank": 4,
        "lora_alpha": 8,
    }  # fmt: skip
    return FineTuningConfig(model_name=folder, quantization=quantization, **{**defaults, **changes})


@dataclass(frozen=True)
class Trained:
    config: FineTuningConfig
    model: PeftModel
    losses: list[float]


def run(config: FineTuningConfig, examples: list[Example], **options: Any) -> Trained:
    """A fresh quantized base trained, and the loss of each step."""
    model = add_lora(load_model(config.model_name, quantization=config.quantization), config)
    losses: list[float] = []

    def report(metrics: Any) -> None:
        if isinstance(metrics, StepMetrics):
            losses.append(metrics.train_loss)

    train(model, examples, [], config, report=report, **options)
    return Trained(config, model, losses)


@pytest.fixture(scope="module")
def trained(folders: dict[str, str]) -> dict[tuple[str, str], Trained]:
    """Each kind of each architecture, trained once."""
    return {
        (one, kind): run(config_for(folders[one], kind), examples_for(one, 4))
        for one in ARCHITECTURES
        for kind in KINDS
    }


def frozen_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        name.replace("base_model.model.", "").replace("base_layer.", ""): parameter.detach()
        for name, parameter in model.named_parameters()
        if "lora_" not in name
    }


def relative_error(layer: torch.nn.Module, plain: torch.nn.Module) -> float:
    """How far a quantized layer's weights are from those that it was made of."""
    wanted = plain.weight.detach().T if isinstance(plain, Conv1D) else plain.weight.detach()
    found = dequantize_module_weight(layer).detach().float()
    return float((found - wanted).norm() / wanted.norm())


@every_kind_of_every_architecture
def test_every_linear_layer_is_quantized_but_the_head_and_where_t5_overflows(
    architecture: str, quantization: Quantization, folders: dict[str, str]
) -> None:
    plain, quantized = make_base(architecture), load_model(folders[architecture], quantization=quantization)
    for path, layer in plain.named_modules():
        if not isinstance(layer, torch.nn.Linear | Conv1D):
            continue
        other = quantized.get_submodule(path)
        if path.endswith((".wo", "lm_head")):
            assert type(other) is torch.nn.Linear, path
            continue
        assert type(other) is LAYERS[quantization], path
        assert relative_error(other, layer) < (0.01 if quantization == "8bit" else 0.11), path
    if quantization == "4bit":
        layers = [layer for layer in quantized.modules() if isinstance(layer, Linear4bit)]
        assert {(one.weight.quant_type, one.weight.quant_state.nested) for one in layers} == {("nf4", True)}
        assert {one.compute_dtype for one in layers} == {torch.float32}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_whose_rows_are_no_whole_blocks_are_not_misread_on_a_cpu(architecture: str, tmp_path: Path) -> None:
    plain = make_model(architecture)  # 32 wide
    plain.save_pretrained(tmp_path)
    quantized = load_model(str(tmp_path), quantization="4bit")
    num_quantized = 0
    for path, layer in plain.named_modules():
        if not isinstance(layer, torch.nn.Linear | Conv1D):
            continue
        other = quantized.get_submodule(path)
        if isinstance(other, Linear4bit):
            num_quantized += 1
            assert relative_error(other, layer) < 0.11, path
        else:
            assert torch.equal(other.weight, layer.weight), path
    assert num_quantized == {"gpt2": 2, "llama": 2, "t5": 0}[architecture]


@every_kind_of_every_architecture
def test_training_lowers_the_loss_and_changes_lora_weights_only(
    architecture: str, quantization: Quantization, trained: dict[tuple[str, str], Trained]
) -> None:
    one = trained[architecture, quantization]
    assert sum(one.losses[-2:]) < sum(one.losses[:2])
    assert all("lora_" in name and weight.dtype is torch.float32 for name, weight in trainable(one.model))
    assert all(weight.any() for name, weight in trainable(one.model) if "lora_B" in name), "a layer learned nothing"
    before = frozen_weights(load_model(one.config.model_name, quantization=quantization))
    after = frozen_weights(one.model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(("architecture", "quantization"), [("gpt2", "4bit"), ("llama", "8bit"), ("t5", "4bit")])
def test_an_interrupted_run_ends_with_the_same_bits(
    architecture: str, quantization: Quantization, trained: dict[tuple[str, str], Trained], tmp_path: Path
) -> None:
    undisturbed = trained[architecture, quantization]
    examples = examples_for(architecture, 4)
    num_asked = 0

    def should_stop() -> bool:
        nonlocal num_asked
        num_asked += 1
        return num_asked > 4

    def checkpoints() -> Checkpoints:
        return Checkpoints(tmp_path, keep=1, identity="run")

    first = run(undisturbed.config, examples, checkpoints=checkpoints(), should_stop=should_stop)
    resumed = run(undisturbed.config, examples, checkpoints=checkpoints())
    assert 0 < len(first.losses) < len(undisturbed.losses)
    assert first.losses + resumed.losses == undisturbed.losses
    expected = dict(trainable(undisturbed.model))
    assert all(torch.equal(weight, expected[name]) for name, weight in trainable(resumed.model))


@every_kind_of_every_architecture
def test_the_adapter_is_published_and_served_beside_the_plain_base_and_beside_a_quantized_one(
    architecture: str, quantization: Quantization, trained: dict[tuple[str, str], Trained], tmp_path: Path
) -> None:
    one = trained[architecture, quantization]
    probe = examples_for(architecture, 1)[0]
    prompt = probe.input_ids[:-1]
    stage(one.model, make_tokenizer(), tmp_path / "staged", LINEAGE)
    verify(one.model, tmp_path / "staged", probe)
    for kind in ("none", quantization):
        base = load_model(one.config.model_name, quantization=kind)
        alone = served_answer(base, None, prompt)
        served = served_answer(base, tmp_path / "staged", prompt)
        plain_peft = PeftModel.from_pretrained(
            load_model(one.config.model_name, quantization=kind), str(tmp_path / "staged")
        )
        assert served == peft_answer(plain_peft, prompt)
        assert served != alone, "the adapter changes nothing"
    assert peft_answer(one.model, prompt) == served


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_dora_learns_on_a_four_bit_base_and_is_published_and_served(
    architecture: str, folders: dict[str, str], tmp_path: Path
) -> None:
    one = run(config_for(folders[architecture], "4bit", use_dora=True), examples_for(architecture, 4))
    assert sum(one.losses[-2:]) < sum(one.losses[:2])
    probe = examples_for(architecture, 1)[0]
    stage(one.model, make_tokenizer(), tmp_path / "staged", LINEAGE)
    verify(one.model, tmp_path / "staged", probe)
    plain_peft = PeftModel.from_pretrained(load_model(folders[architecture]), str(tmp_path / "staged"))
    served = served_answer(load_model(folders[architecture]), tmp_path / "staged", probe.input_ids[:-1])
    assert served == peft_answer(plain_peft, probe.input_ids[:-1])


def test_dora_on_an_eight_bit_base_is_refused_also_where_no_configuration_said_so(
    folders: dict[str, str], tmp_path: Path
) -> None:
    config = config_for(folders["llama"], "none", use_dora=True)
    add_lora(load_model(folders["llama"]), config).save_pretrained(str(tmp_path), save_embedding_layers=False)
    for refused in (
        lambda base: add_lora(base, config),
        lambda base: load_lora(base, tmp_path),
    ):
        with pytest.raises(InvalidRequest, match="8 bits"):
            refused(load_model(folders["llama"], quantization="8bit"))


@pytest.mark.parametrize("quantization", KINDS)
def test_training_on_is_possible_after_loading(
    quantization: Quantization, trained: dict[tuple[str, str], Trained], tmp_path: Path
) -> None:
    one = trained["llama", quantization]
    one.model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    loaded = load_lora(load_model(one.config.model_name, quantization=quantization), tmp_path)
    before = {name: weight.detach().clone() for name, weight in trainable(loaded)}
    assert {name: weight.dtype for name, weight in before.items()} == {
        name: weight.dtype for name, weight in trainable(one.model)
    }
    train(loaded, examples_for("llama", 4), [], one.config.model_copy(update={"num_epochs": 1}))
    assert not any(torch.equal(weight, before[name]) for name, weight in trainable(loaded))


@pytest.mark.parametrize("quantization", KINDS)
def test_each_step_learns_what_it_learns_after_pefts_own_preparation(
    quantization: Quantization, folders: dict[str, str]
) -> None:
    config = config_for(folders["llama"], quantization, lora_dropout=0.0, num_epochs=2)
    ours = run(config, examples_for("llama", 4))
    base = load_model(folders["llama"], quantization=quantization)
    prepared = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=find_target_modules(base, None), task_type="CAUSAL_LM")
    torch.manual_seed(config.seed)
    theirs = get_peft_model(prepared, lora)
    train(theirs, examples_for("llama", 4), [], config)
    expected = dict(trainable(theirs))
    assert all(torch.equal(weight, expected[name]) for name, weight in trainable(ours.model))


@pytest.mark.parametrize(("architecture", "quantization"), [("gpt2", "4bit"), ("llama", "8bit"), ("t5", "4bit")])
def test_in_bf16_nothing_frozen_is_doubled_to_fp32_and_the_model_learns(
    architecture: str, quantization: Quantization, folders: dict[str, str]
) -> None:
    config = config_for(folders[architecture], quantization)
    model = add_lora(load_model(folders[architecture], dtype=torch.bfloat16, quantization=quantization), config)
    frozen = {one.dtype for one in model.parameters() if not one.requires_grad}
    assert frozen == {torch.bfloat16, torch.int8 if quantization == "8bit" else torch.uint8}
    assert {one.dtype for _, one in trainable(model)} == {torch.float32}
    losses: list[float] = []
    train(
        model, examples_for(architecture, 4), [], config,
        report=lambda metrics: losses.append(metrics.train_loss) if isinstance(metrics, StepMetrics) else None,
    )  # fmt: skip
    assert sum(losses[-2:]) < sum(losses[:2])


@pytest.mark.parametrize(
    ("capability", "expected"),
    [(CPU, torch.float32), (T4, torch.float32), (A100, torch.bfloat16), (H100, torch.bfloat16)],
)
def test_frozen_weights_are_bf16_on_a_gpu_that_computes_in_it_and_else_fp32(
    capability: tuple[int, int] | None, expected: torch.dtype
) -> None:
    assert precision_of(capability) is expected


@pytest.fixture(scope="module")
def overflowing_t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A T5 saved in fp16 whose hidden states do not fit into fp16."""
    model = make_base("t5")
    for path, layer in model.named_modules():
        if path.endswith(".wo"):
            layer.weight.data *= 1.2e5
    folder = tmp_path_factory.mktemp("t5")
    model.half().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("capability", [CPU, T4, A100])
@pytest.mark.parametrize("quantization", ["none", *KINDS])
def test_t5_is_never_in_fp16_and_does_not_overflow(
    quantization: Quantization, capability: tuple[int, int] | None, overflowing_t5: str
) -> None:
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 0]]), "labels": torch.tensor([[8, 9, 0]])}
    with torch.no_grad():
        wanted = load_model(overflowing_t5).eval()(**inputs, output_hidden_states=True)
        assert max(float(one.abs().max()) for one in wanted.encoder_hidden_states) > torch.finfo(torch.float16).max
        model = load_model(overflowing_t5, dtype=precision_of(capability), quantization=quantization).eval()
        assert torch.float16 not in {one.dtype for one in model.parameters()}
        computing = {layer.compute_dtype for layer in model.modules() if isinstance(layer, Linear4bit)}
        assert computing == ({precision_of(capability)} if quantization == "4bit" else set())
        assert float(model(**inputs).loss) == pytest.approx(float(wanted.loss), rel=0.2)


def test_four_bit_weights_are_not_repacked_by_answering_into_a_form_without_gradients(folders: dict[str, str]) -> None:
    model = load_model(folders["llama"], quantization="4bit")
    layers = [layer for layer in model.modules() if isinstance(layer, Linear4bit)]
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    for layer in layers:
        layer.support_avx512bf16_for_cpu = True  # as on a CPU that has AVX-512 BF16
    keep_trainable(model)
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


@pytest.mark.parametrize("quantization", KINDS)
def test_the_unquantized_weights_do_not_stay_in_memory(quantization: Quantization, folders: dict[str, str]) -> None:
    plain = load_model(folders["gpt2"])
    assert folders["gpt2"] in Path("/proc/self/maps").read_text(), "no file is mapped, so the test shows nothing"
    del plain
    model = load_model(folders["gpt2"], quantization=quantization)
    assert model.config.model_type == "gpt2"
    assert folders["gpt2"] not in Path("/proc/self/maps").read_text()


@pytest.fixture
def _without_bitsandbytes() -> Iterator[None]:
    found = sys.modules["bitsandbytes"]
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
    yield
    sys.modules["bitsandbytes"] = found


@pytest.mark.usefixtures("_without_bitsandbytes")
@pytest.mark.parametrize("quantization", KINDS)
def test_quantization_without_bitsandbytes_is_refused_and_says_what_to_install(
    quantization: Quantization, folders: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequest, match="bitsandbytes") as caught:
        load_model(folders["gpt2"], quantization=quantization)
    assert caught.value.param == "quantization"


def test_eight_bit_layers_do_not_chatter(folders: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.NOTSET)
    model = load_model(folders["gpt2"], quantization="8bit").eval()
    model(input_ids=torch.tensor([[1, 2, 3]]))
    assert not [record for record in caplog.records if "MatMul8bit" in record.message]
