"""The quick operations against torch's, PEFT's and transformers' own."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn

from shared.training_config import FineTuningConfig
from tests.tiny_models import make_model
from worker.finetuning.kernels import cross_entropy
from worker.finetuning.kernels.attention import block_attention
from worker.finetuning.kernels.dropout import QuickDropout
from worker.finetuning.kernels.installing import quick_operations
from worker.finetuning.kernels.lora_linear import lora_linear
from worker.finetuning.kernels.noise import draw, kept, scale_of
from worker.finetuning.lora import add_lora


def normal(*shape: int, seed: int = 0, grad: bool = True) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).requires_grad_(grad)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = QuickDropout(0.1)
    inputs = torch.ones(1000, 1000)
    output = layer(inputs)
    share = float((output == 0).float().mean())
    # of a single call: one of the two 256ths beside 0.1, within four standard deviations of a million draws
    assert min(abs(share - 25 / 256), abs(share - 26 / 256)) < 4 * 0.3 / 1000
    assert output.unique().tolist() == pytest.approx([0.0, 1 / 0.9], abs=1e-5)
    # neither rows nor columns nor neighbours hang together
    dropped = (output == 0).float()
    assert float((dropped[:, 1:] * dropped[:, :-1]).mean()) == pytest.approx(0.01, abs=5e-4)
    assert float((dropped[1:] * dropped[:-1]).mean()) == pytest.approx(0.01, abs=5e-4)


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_over_many_calls_exactly_the_rate_is_dropped(rate: float) -> None:
    torch.manual_seed(0)
    shares = [float((kept(draw((10, 100), rate)) == 0).float().mean()) for _ in range(4000)]
    deviation = (rate * (1 - rate) / 4e6 + 1 / 256**2 / 4 / 4000) ** 0.5  # of the elements, and of the thresholds
    assert sum(shares) / 4000 == pytest.approx(rate, abs=4 * deviation)


def test_dropout_gives_the_gradient_of_what_it_kept_and_follows_torchs_seed() -> None:
    layer, inputs = QuickDropout(0.5), normal(64, 64)
    torch.manual_seed(3)
    output = layer(inputs)
    output.sum().backward()
    torch.manual_seed(3)
    assert torch.equal(layer(inputs), output)
    assert not torch.equal(layer(inputs), output)
    assert inputs.grad is not None
    assert torch.allclose(inputs.grad * inputs, output)
    assert layer.eval()(inputs) is inputs


@pytest.mark.parametrize("is_transposed", [False, True])
def test_a_lora_layer_and_its_gradients_equal_pefts(is_transposed: bool) -> None:
    model = add_lora(make_model("gpt2" if is_transposed else "llama"), FineTuningConfig(lora_dropout=0.0))
    layer = next(module for module in model.modules() if isinstance(module, PeftLinear))
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    nn.init.normal_(up)
    inputs, wanted = normal(3, 5, 32), normal(3, 5, up.shape[0], seed=1, grad=False)
    expected = layer(inputs)
    gradients = torch.autograd.grad((expected * wanted).sum(), (inputs, down, up))
    with quick_operations(model):
        output = layer(inputs)
        assert output.grad_fn is not None
        assert "_LoraLinear" in output.grad_fn.next_functions[0][0].name() or "_LoraLinear" in output.grad_fn.name()
        quick = torch.autograd.grad((output * wanted).sum(), (inputs, down, up))
    assert torch.allclose(output, expected, atol=1e-5)
    for ours, pefts in zip(quick, gradients, strict=True):
        assert torch.allclose(ours, pefts, rtol=1e-4, atol=1e-5)


def test_a_lora_layers_dropout_thins_the_low_rank_part_alone() -> None:
    inputs, weight, bias = normal(6, 8), normal(8, 5, seed=1, grad=False), normal(5, seed=2, grad=False)
    down, up = normal(2, 8, seed=3), normal(5, 2, seed=4)
    torch.manual_seed(5)
    output = lora_linear(inputs, weight, bias, down, up, 2.0, 0.25)
    output.square().sum().backward()
    ours = [one.grad for one in (inputs, down, up)]
    torch.manual_seed(5)
    mask = kept(draw((6, 8), 0.25)) * scale_of(0.25)
    plain = [one.detach().clone().requires_grad_() for one in (inputs, down, up)]
    expected = plain[0] @ weight + bias + 2.0 * (plain[0] * mask) @ plain[1].t() @ plain[2].t()
    expected.square().sum().backward()
    assert 0 < int((mask == 0).sum()) < 48
    assert torch.allclose(output, expected, atol=1e-5)
    for gradient, one in zip(ours, plain, strict=True):
        assert gradient is not None
        assert one.grad is not None
        assert torch.allclose(gradient, one.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_attention_keeps_joined_sequences_apart(dropout: float) -> None:
    lengths = (5, 1, 7)
    bounds = torch.tensor([0, 5, 6, 13], dtype=torch.int32)
    query, key, value = (normal(1, 4, 13, 8, seed=seed) for seed in range(3))
    key, value = key[:, :2], value[:, :2]  # two query heads share a key head
    torch.manual_seed(9)
    output, _ = block_attention(nn.Identity(), query, key, value, None, dropout=dropout, cu_seq_lens_q=bounds)
    wanted = normal(1, 13, 4, 8, seed=7, grad=False)
    ours = torch.autograd.grad((output * wanted).sum(), (query, key, value))
    torch.manual_seed(9)
    parts = []
    for start, size in zip((0, 5, 6), lengths, strict=True):
        one, other, third = (
            tensor[0, :, start : start + size].repeat_interleave(4 // tensor.shape[1], 0)
            for tensor in (query, key, value)
        )
        scores = one @ other.transpose(1, 2) / 8**0.5 + torch.full((size, size), float("-inf")).triu(1)
        shares = scores.softmax(-1)
        if dropout:
            shares = shares * kept(draw(tuple(shares.shape), dropout)) * scale_of(dropout)
        parts.append((shares @ third).transpose(0, 1))
    expected = torch.cat(parts)[None]
    theirs = torch.autograd.grad((expected * wanted).sum(), (query, key, value))
    assert torch.allclose(output, expected, atol=1e-5)
    for gradient, reference in zip(ours, theirs, strict=True):
        assert torch.allclose(gradient, reference, atol=1e-5)


@pytest.mark.parametrize(
    ("mask", "options"),
    [(torch.ones(1, 1, 4, 4), {}), (None, {"sliding_window": 3}), (None, {"softcap": 30.0}), (None, {"s_aux": 1})],
)
def test_attention_refuses_what_it_does_not_know(mask: Tensor | None, options: dict[str, object]) -> None:
    operands = [normal(1, 2, 4, 8) for _ in range(3)]
    with pytest.raises(NotImplementedError):
        block_attention(nn.Identity(), *operands, mask, cu_seq_lens_q=torch.tensor([0, 4]), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("has_bias", [False, True])
def test_the_loss_of_the_output_layer_in_chunks_equals_torchs(has_bias: bool) -> None:
    hidden, weight = normal(150, 16), normal(40, 16, seed=1, grad=False)
    bias = normal(40, seed=2, grad=False) if has_bias else None
    targets = torch.arange(150) % 40
    loss, num_correct = cross_entropy.linear_cross_entropy(hidden, weight, bias, targets)
    (gradient,) = torch.autograd.grad(loss / 7, hidden)
    logits = nn.functional.linear(hidden, weight, bias)
    expected = nn.functional.cross_entropy(logits, targets, reduction="sum")
    (reference,) = torch.autograd.grad(expected / 7, hidden)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert int(num_correct) == int((logits.argmax(1) == targets).sum()) > 0
    assert torch.allclose(gradient, reference, atol=1e-6)


@pytest.mark.parametrize("num_targets", [1, 64, 65, 150])
def test_log_probabilities_equal_torchs_whatever_the_chunks(num_targets: int) -> None:
    # more than 128 Ki logits a row, so that a chunk is the smallest one: 64 rows
    hidden, weight = normal(num_targets, 4), normal(140_000, 4, seed=1, grad=False)
    targets = torch.arange(num_targets) * 11
    weights = normal(num_targets, seed=5, grad=False)
    ours, is_likeliest = cross_entropy.linear_log_probs(hidden, weight, None, targets)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), hidden)
    loss, _ = cross_entropy.linear_cross_entropy(hidden, weight, None, targets)
    expected = (hidden @ weight.t()).log_softmax(1).gather(1, targets[:, None])[:, 0]
    (reference,) = torch.autograd.grad((expected * weights).sum(), hidden)
    assert torch.allclose(ours, expected, atol=1e-4)
    assert torch.equal(is_likeliest, (hidden @ weight.t()).argmax(1) == targets)
    assert loss.item() == pytest.approx(-expected.sum().item(), rel=1e-5)
    assert torch.allclose(gradient, reference, atol=1e-4)


def test_a_model_in_half_precision_stays_in_it() -> None:
    model = make_model("gpt2").to(torch.bfloat16)
    with quick_operations(model):
        output = model.train()(torch.tensor([[1, 2, 3]])).logits
    assert output.dtype == torch.bfloat16


def test_a_model_is_as_it_was_after_its_training() -> None:
    model = add_lora(make_model("gpt2"), FineTuningConfig())
    before = {name: type(module) for name, module in model.named_modules()}
    with quick_operations(model):
        kinds = {type(module) for module in model.modules()}
        assert QuickDropout in kinds
        assert nn.Dropout not in kinds
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert not any("forward" in vars(module) for module in model.modules() if isinstance(module, PeftLinear))
