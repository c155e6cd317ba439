from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, LlamaConfig, PretrainedConfig, PreTrainedModel, T5Config
from transformers.pytorch_utils import Conv1D

from tests.inference.tiny import make_model
from worker.base_models.demo.corpus import documents
from worker.base_models.loading import load_model, load_tokenizer
from worker.base_models.precision import WeightFormat, gpu_format
from worker.inference.weights import (
    Int8Linear,
    PackedLinear,
    Processor,
    load_weights,
    packed_if_true,
    prepare_weights,
)

ROWS = (1, 3, 16, 64, 65, 200)
PLAIN = Processor(has_mkl=True, has_vnni=False)

needs_mkl = pytest.mark.skipif(not Processor.here().has_mkl, reason="torch is built without MKL here")
needs_vnni = pytest.mark.skipif(not Processor.here().has_vnni, reason="this processor has no VNNI")


def logits(model: PreTrainedModel, num_rows: int) -> Tensor:
    torch.manual_seed(num_rows)
    ids = torch.randint(1, 250, (num_rows, 3))
    extra = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.inference_mode():
        found: Tensor = model(input_ids=ids, **extra).logits
    return found


def linear(num_inputs: int = 96, num_outputs: int = 40) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(num_inputs, num_outputs).requires_grad_(False)


@needs_mkl
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "t5"])
def test_float32_answers_as_the_model_did(architecture: str) -> None:
    model = make_model(architecture)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # tiny models' are zero
            nn.init.normal_(parameter)
    expected = [logits(model, rows) for rows in ROWS]
    prepare_weights(model, "auto")
    assert not [one for one in model.modules() if type(one) in (nn.Linear, Conv1D)]
    for rows, wanted in zip(ROWS, expected, strict=True):
        torch.testing.assert_close(logits(model, rows), wanted, rtol=1e-4, atol=1e-3)


@needs_mkl
def test_float32_keeps_the_packed_weights_alone() -> None:
    model = make_model("llama")
    plain = [weakref.ref(one.weight) for one in model.modules() if type(one) is nn.Linear]
    prepare_weights(model, "float32")
    assert plain
    assert not [one for one in plain if one() is not None]


@needs_mkl
def test_a_layer_whose_packed_products_are_wrong_stays_as_it_is() -> None:
    class Wrong(PackedLinear):
        """As it would be where MKL cannot use a packed weight for other numbers of rows."""

        def _multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
            return super()._multiply(x, bias) * (1 if x.shape[0] == 64 else 1.01)

    layer = linear()
    assert PackedLinear(layer.weight, None).is_true_to(layer.weight)
    assert not Wrong(layer.weight, None).is_true_to(layer.weight)
    assert packed_if_true(layer, Wrong) is layer


@needs_vnni
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "t5"])
def test_int8_models_answer_nearly_as_they_did(architecture: str) -> None:
    model = make_model(architecture)
    expected = logits(model, 4)
    said = prepare_weights(model, "int8")
    assert "in int8, as set" in said
    assert not [one for one in model.modules() if type(one) in (nn.Linear, Conv1D)]
    error = (logits(model, 4) - expected).norm() / expected.norm()
    assert 0 < error < 0.25  # large random weights, and T5's unscaled attention, magnify what is rounded


@needs_vnni
def test_an_int8_row_does_not_depend_on_its_neighbours() -> None:
    layer = Int8Linear(linear(768, 64).weight, None)
    rows = torch.randn(40, 768) * torch.logspace(-3, 3, 40)[:, None]  # one scale for all would drown the small ones
    together = layer(rows)
    for number in (1, 2, 5, 16):
        assert torch.equal(layer(rows[:number]), together[:number])
    torch.testing.assert_close(together[0], rows[0] @ layer.dequantized_weight().T, rtol=0.1, atol=1e-4)


@needs_vnni
def test_int8_products_are_those_of_the_rounded_numbers() -> None:
    plain = linear()
    layer = Int8Linear(plain.weight, plain.bias)
    scales = plain.weight.abs().amax(1, keepdim=True) / 127
    weight = (plain.weight / scales).round() * scales
    torch.testing.assert_close(layer.dequantized_weight(), weight)
    rows = torch.randn(2, 5, 96)
    steps = rows.abs().amax(-1, keepdim=True) / 127
    torch.testing.assert_close(
        layer(rows), (rows / steps).round() * steps @ weight.T + plain.bias, rtol=1e-4, atol=1e-5
    )


@needs_vnni
def test_int8_takes_rows_of_zeros_and_passes_nan_on() -> None:
    plain = linear()
    layer = Int8Linear(plain.weight, plain.bias)
    assert torch.equal(layer(torch.zeros(1, 96)), plain.bias[None])
    rows = torch.zeros(2, 96)
    rows[0, 5] = torch.nan
    assert layer(rows).isnan().tolist() == [[True] * 40, [False] * 40]


@needs_vnni
def test_int8_changes_the_held_out_loss_by_less_than_a_hundredth() -> None:
    tokenizer = load_tokenizer("demo")
    source = documents(99, 8)
    batch = tokenizer(
        [next(source) for _ in range(8)], truncation=True, max_length=256, padding=True, return_tensors="pt"
    )
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)

    def loss(model: PreTrainedModel) -> float:
        with torch.inference_mode():
            return float(model(**batch, labels=labels).loss)

    model = load_model("demo").eval()
    before = loss(model)
    prepare_weights(model, "int8")
    assert loss(model) != before
    assert loss(model) == pytest.approx(before, rel=0.01)


@pytest.mark.parametrize("plain", [nn.Linear, Conv1D])
@pytest.mark.parametrize("made", [PackedLinear, Int8Linear])
def test_layers_show_their_sizes_and_weight(made: type, plain: type) -> None:
    if made is Int8Linear and not Processor.here().has_vnni:
        pytest.skip("this processor has no VNNI")
    if made is PackedLinear and not Processor.here().has_mkl:
        pytest.skip("torch is built without MKL here")
    wide = nn.Sequential(Conv1D(40, 96) if plain is Conv1D else linear()).requires_grad_(False)
    weight = wide[0].weight.T if plain is Conv1D else wide[0].weight
    weight = weight.clone()
    model = make_model("gpt2")
    model.wide = wide
    prepare_weights(model, "int8" if made is Int8Linear else "auto", Processor(has_mkl=True, has_vnni=True))
    layer = wide[0]
    assert type(layer) is made
    assert (layer.in_features, layer.out_features) == (96, 40)
    torch.testing.assert_close(layer.dequantized_weight(), weight, rtol=0, atol=1e-3 if made is Int8Linear else 0)


def test_layers_of_other_kinds_are_left_alone() -> None:
    class Quantized(nn.Linear):
        """As bitsandbytes' are."""

    model = make_model("llama")
    layer = model.special = Quantized(4, 4)
    prepare_weights(model, "auto", PLAIN)
    assert model.special is layer


@pytest.mark.parametrize(
    ("weights", "processor", "sentence"),
    [
        ("auto", PLAIN, "15 layers' weights in float32, packed for MKL"),
        ("int8", PLAIN, "15 layers' weights in float32, packed for MKL: int8 is set, but"),
        ("int8", Processor(False, False), "weights in float32: int8 is set, but this processor has no VNNI"),
        ("auto", Processor(False, False), "weights in float32, as loaded"),
    ],
)  # fmt: skip
def test_the_log_says_what_was_chosen_and_why(weights: WeightFormat, processor: Processor, sentence: str) -> None:
    assert prepare_weights(make_model("llama"), weights, processor).startswith(sentence)


def test_bfloat16_halves_the_weights_and_says_so(gpt2: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("on a GPU it is the usual format")
    model, said = load_weights(str(gpt2), None, "bfloat16")
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}
    assert said == "weights in bfloat16, as loaded"


@pytest.mark.parametrize(
    ("config", "weights", "capability", "can_quantize", "dtype", "quantization"),
    [
        (LlamaConfig(), "auto", (9, 0), True, torch.bfloat16, "none"),
        (LlamaConfig(), "auto", (7, 5), True, torch.float16, "none"),
        (T5Config(), "auto", (8, 0), True, torch.bfloat16, "none"),
        (T5Config(), "auto", (7, 5), True, torch.float32, "none"),
        (GPT2Config(), "float32", (9, 0), True, torch.float32, "none"),
        (GPT2Config(), "int8", (9, 0), True, torch.bfloat16, "8bit"),
        (GPT2Config(), "int8", (9, 0), False, torch.bfloat16, "none"),
    ],
)
def test_a_gpu_gets_the_precision_that_it_computes_in(
    config: PretrainedConfig,
    weights: WeightFormat,
    capability: tuple[int, int],
    can_quantize: bool,
    dtype: torch.dtype,
    quantization: str,
) -> None:
    found = gpu_format(config, weights, capability, can_quantize=can_quantize)
    assert found[:2] == (dtype, quantization)
