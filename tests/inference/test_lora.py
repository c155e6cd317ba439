"""Adapters of one base model in one batch, against PEFT's own models, one row at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from shared.errors import AdapterBroken, OutOfMemory, Unavailable
from tests.inference import tiny
from tests.inference.tiny import add_nan, set_rank
from tests.tiny_models import ARCHITECTURES, VOCABULARY
from tests.tiny_models import save_model as save_base
from worker.base_models.loading import load_model
from worker.inference.lora_layers import LoraLayer
from worker.inference.lora_stacks import AdapterStacks
from worker.inference.sequence import AdapterFiles

TARGETS = {
    "gpt2": ["c_attn", "c_fc", "mlp.c_proj"],
    "llama": ["q_proj", "v_proj", "down_proj"],
    "t5": ["q", "v", "o", "wi_0"],
}
ROUNDING = {"gpt2": 1e-5, "llama": 1e-5, "t5": 5e-5}  # T5 does not scale its attention down, so it amplifies errors
WEIGHTS = "adapter_model.safetensors"
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4},
    "larger": {"r": 7, "lora_alpha": 3},
    "rank-stabilized": {"r": 3, "use_rslora": True},
    "dora": {"r": 2, "use_dora": True},
    "patterns": {"r": 2, "rank_pattern": {r"1\..*": 5}, "alpha_pattern": {"c_fc|q_proj|q": 3}},
    "few layers": {"r": 4, "target_modules": {"gpt2": ["c_fc"], "llama": ["down_proj"], "t5": ["wi_0"]}},
    "some blocks": {"r": 4, "layers_to_transform": [1]},
}


def make_model(architecture: str) -> PreTrainedModel:
    """A tiny model whose biases are not zero, so that it shows if DoRA scales them."""
    model = tiny.make_model(architecture)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def save_adapter(folder: Path, model: PreTrainedModel, architecture: str, **changes: Any) -> AdapterFiles:
    """PEFT's files of an adapter whose weights are not zero."""
    targets = changes.pop("target_modules", TARGETS)[architecture]
    torch.manual_seed(len(folder.name) + sum(map(ord, folder.name)))
    config = LoraConfig(
        target_modules=targets, fan_in_fan_out=architecture == "gpt2", **{"r": 4, "lora_alpha": 8, **changes}
    )
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(folder)
    return AdapterFiles(folder.name, folder)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, AdapterFiles]]:
    """One adapter of each kind for an architecture, saved once."""
    saved: dict[str, dict[str, AdapterFiles]] = {}

    def of(architecture: str) -> dict[str, AdapterFiles]:
        if architecture not in saved:
            root = tmp_path_factory.mktemp(architecture)
            saved[architecture] = {
                kind: save_adapter(root / kind, make_model(architecture), architecture, **changes)
                for kind, changes in KINDS.items()
            }
        return saved[architecture]

    return of


def some_ids(rows: int, width: int) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (rows, width), generator=torch.Generator().manual_seed(rows * width))


@torch.no_grad()
def logits_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """(rows, width, vocabulary); an encoder-decoder is asked for one more token."""
    if not model.config.is_encoder_decoder:
        return model(input_ids=ids).logits
    return model(input_ids=ids, decoder_input_ids=torch.zeros(len(ids), 1, dtype=torch.long)).logits


def logits_by_peft(model: PreTrainedModel, adapter: AdapterFiles | None, ids: torch.Tensor) -> torch.Tensor:
    """`model` must be fresh: PEFT changes it."""
    return logits_of(model if adapter is None else PeftModel.from_pretrained(model, str(adapter.folder)).eval(), ids)


def logits_by_us(model: Any, stacks: AdapterStacks, keys: Sequence[str | None], ids: torch.Tensor) -> torch.Tensor:
    """A row each key: encoders see whole rows, decoders of encoder-decoder models one token a row."""
    with torch.inference_mode():
        stacks.route([(key, ids.shape[1]) for key in keys])
        if not model.config.is_encoder_decoder:
            return model(input_ids=ids).logits
        encoded = model.get_encoder()(input_ids=ids)
        stacks.route([(key, 1) for key in keys])
        start = torch.zeros(len(ids), 1, dtype=torch.long)
        return model(encoder_outputs=encoded, decoder_input_ids=start).logits


def assert_equal(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert ((found - expected).abs().max() / expected.abs().max()).item() < tolerance


@pytest.mark.parametrize("width", [1, 5, 40], ids=["one token", "short rows", "long rows"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_row_of_a_mixed_batch_equals_peft_s_model_of_its_adapter(
    architecture: str, width: int, adapters: Callable[[str], dict[str, AdapterFiles]]
) -> None:
    files = adapters(architecture)
    model = make_model(architecture)
    stacks = AdapterStacks(model, max_loaded=8)
    for adapter in files.values():
        stacks.load(adapter, set())
    keys: list[str | None] = ["dora", "plain", None, "larger", "plain", *KINDS]
    ids = some_ids(len(keys), width)
    found = logits_by_us(model, stacks, keys, ids)
    bare = logits_by_us(model, stacks, [None] * len(keys), ids)
    for row, key in enumerate(keys):
        adapter = files[key] if key else None
        expected = logits_by_peft(make_model(architecture), adapter, ids[row : row + 1])
        assert_equal(found[row : row + 1], expected, ROUNDING[architecture])
        assert key is None or not torch.allclose(found[row], bare[row]), "the adapter changes nothing"


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_tokens_of_one_row_may_have_an_adapter_while_others_have_none(
    architecture: str, adapters: Callable[[str], dict[str, AdapterFiles]]
) -> None:
    files = adapters(architecture)
    model = make_model(architecture)
    stacks = AdapterStacks(model, max_loaded=8)
    rows: list[tuple[str | None, int]] = [
        ("dora", 33), ("plain", 1), ("plain", 44), (None, 9), ("larger", 17), *[("plain", 7)] * 5,
    ]  # fmt: skip
    for key, _ in rows:
        if key:
            stacks.load(files[key], set())
    ids = some_ids(len(rows), 44)
    with torch.inference_mode():
        stacks.route([part for key, length in rows for part in ((key, length), (None, 44 - length))])
        found = model(input_ids=ids).logits
    for row, (key, length) in enumerate(rows):
        adapter = files[key] if key else None
        expected = logits_by_peft(make_model(architecture), adapter, ids[row : row + 1, :length])
        assert_equal(found[row : row + 1, :length], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_one_adapter_equals_peft_s_model(
    kind: str, adapters: Callable[[str], dict[str, AdapterFiles]]
) -> None:
    model = make_model("gpt2")
    stacks = AdapterStacks(model, max_loaded=2)
    stacks.load(adapters("gpt2")[kind], set())
    ids = some_ids(3, 6)
    found = logits_by_us(model, stacks, [kind] * 3, ids)
    assert_equal(found, logits_by_peft(make_model("gpt2"), adapters("gpt2")[kind], ids))


def test_without_adapters_the_base_computes_bit_for_bit_what_it_did(
    adapters: Callable[[str], dict[str, AdapterFiles]],
) -> None:
    ids = some_ids(3, 6)
    model = make_model("gpt2")
    before = logits_of(model, ids)
    stacks = AdapterStacks(model, max_loaded=2)
    stacks.load(adapters("gpt2")["dora"], set())
    assert torch.equal(logits_by_us(model, stacks, [None] * 3, ids), before)


def test_adapters_that_come_leave_and_come_back_answer_as_peft_does(tmp_path: Path) -> None:
    files = [save_adapter(tmp_path / str(n), make_model("gpt2"), "gpt2", r=1 + n, use_dora=n == 2) for n in range(5)]
    model = make_model("gpt2")
    stacks = AdapterStacks(model, max_loaded=3)
    ids = some_ids(3, 2)
    expected = [logits_by_peft(make_model("gpt2"), adapter, ids) for adapter in files]
    for first in (0, 2, 4, 1, 3, 0):
        keys = [str((first + offset) % 5) for offset in range(3)]
        for key in keys:
            stacks.load(files[int(key)], set(keys))
        found = logits_by_us(model, stacks, keys, ids)
        for row, key in enumerate(keys):
            assert_equal(found[row], expected[int(key)][row])
    assert stacks.keys == ["0", "1", "2"]


def test_adapters_used_together_move_together_and_still_answer_as_peft_does(tmp_path: Path) -> None:
    files = [save_adapter(tmp_path / str(n), make_model("gpt2"), "gpt2", use_dora=n == 7) for n in range(9)]
    model = make_model("gpt2")
    stacks = AdapterStacks(model, max_loaded=9)
    for adapter in files:
        stacks.load(adapter, set())
    for keys in (["8", "0"], ["7", "3"], ["2", "8"]):
        ids = some_ids(2, 3)
        found = logits_by_us(model, stacks, keys, ids)
        assert {stacks.slot_of(key) for key in keys} == {0, 1}
        for row, key in enumerate(keys):
            assert_equal(found[row], logits_by_peft(make_model("gpt2"), files[int(key)], ids)[row])


def test_a_batch_goes_on_unchanged_when_others_arrive_and_the_stacks_grow(tmp_path: Path) -> None:
    files = [save_adapter(tmp_path / str(n), make_model("gpt2"), "gpt2", r=1 + n) for n in range(6)]
    model = make_model("gpt2")
    stacks = AdapterStacks(model, max_loaded=8)
    for adapter in (files[0], files[1], files[2], files[0]):
        stacks.load(adapter, set())
    ids = some_ids(2, 3)
    before = logits_by_us(model, stacks, ["0", "1"], ids)
    for adapter in files[3:]:
        stacks.load(adapter, {"0", "1"})
    assert_equal(logits_by_us(model, stacks, ["0", "1"], ids), before)


def test_who_was_used_least_recently_leaves_and_who_is_in_use_stays(tmp_path: Path) -> None:
    files = [save_adapter(tmp_path / str(n), make_model("gpt2"), "gpt2") for n in range(4)]
    stacks = AdapterStacks(make_model("gpt2"), max_loaded=2)
    for adapter in (files[0], files[1], files[0], files[2]):
        stacks.load(adapter, set())
    assert stacks.keys == ["0", "2"]
    stacks.load(files[1], {"0"})
    assert stacks.keys == ["0", "1"]
    stacks.route([("0", 3)])
    stacks.load(files[2], set())
    assert stacks.keys == ["0", "2"]
    with pytest.raises(Unavailable, match="in use"):
        stacks.load(files[3], {"0", "2"})
    assert stacks.keys == ["0", "2"]


def test_the_memory_set_aside_for_adapters_is_not_exceeded(tmp_path: Path) -> None:
    files = [save_adapter(tmp_path / str(n), make_model("gpt2"), "gpt2", r=rank) for n, rank in enumerate((2, 2, 6, 7))]
    wide = AdapterStacks(make_model("gpt2"), max_loaded=1)
    wide.load(files[2], set())
    limit = wide.memory_bytes
    model = make_model("gpt2")
    stacks = AdapterStacks(model, max_loaded=8, memory_bytes=limit)
    for adapter in files[:3]:
        stacks.load(adapter, set())
        assert stacks.memory_bytes <= limit
    assert stacks.keys == ["2"], "an adapter of rank 6 takes the place of three of rank 2"
    stacks.load(files[0], set())
    stacks.load(files[1], {"0"})
    assert stacks.keys == ["0", "1"]
    assert stacks.memory_bytes <= limit
    ids = some_ids(2, 2)
    found = logits_by_us(model, stacks, ["0", "1"], ids)
    assert_equal(found[1], logits_by_peft(make_model("gpt2"), files[1], ids)[1])
    with pytest.raises(OutOfMemory):
        stacks.load(files[3], set())


class PackedLinear(nn.Module):
    """A linear layer of which only its widths can be seen."""

    def __init__(self, layer: Conv1D) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.weight.shape
        self._forward = layer.forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._forward(x)


@pytest.mark.parametrize("kind", ["plain", "dora"])
def test_a_layer_is_adapted_whatever_it_keeps_its_weights_in(
    kind: str, adapters: Callable[[str], dict[str, AdapterFiles]]
) -> None:
    model = make_model("gpt2")
    for path, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            model.set_submodule(path, PackedLinear(module))
    stacks = AdapterStacks(model, max_loaded=2)
    stacks.load(adapters("gpt2")[kind], set())
    ids = some_ids(2, 4)
    found = logits_by_us(model, stacks, [kind, None], ids)
    assert_equal(found[0], logits_by_peft(make_model("gpt2"), adapters("gpt2")[kind], ids)[0])
    assert_equal(found[1], logits_of(make_model("gpt2"), ids)[1])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # bitsandbytes' own
@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_quantized_layers_take_adapters_as_peft_s_do(architecture: str, quantization: Any, tmp_path: Path) -> None:
    base = str(save_base(architecture, tmp_path / "base"))
    kinds = {"plain": {"r": 4}, "other": {"r": 6}} | ({} if quantization == "8bit" else {"dora": {"use_dora": True}})
    plain = load_model(base)
    files = {key: save_adapter(tmp_path / key, load_model(base), architecture, **one) for key, one in kinds.items()}
    model = load_model(base, quantization=quantization).eval()
    keys = [*files, None]
    ids = some_ids(len(keys), 6)
    logits_of(model, ids)
    stacks = AdapterStacks(model, max_loaded=4)
    for adapter in files.values():
        stacks.load(adapter, set())
    found = logits_by_us(model, stacks, keys, ids)
    exact = logits_of(plain, ids)
    for row, key in enumerate(keys):
        adapter = files[key] if key else None
        reference = load_model(base, quantization=quantization).eval()
        expected = logits_by_peft(reference, adapter, ids[row : row + 1])
        assert_equal(found[row : row + 1], expected, 2e-2)
        assert key is None or not torch.allclose(found[row], exact[row], atol=0.1)


def test_adapters_are_read_in_another_thread_while_the_model_answers(tmp_path: Path) -> None:
    files = [save_adapter(tmp_path / str(n), make_model("gpt2"), "gpt2", use_dora=n > 1) for n in range(4)]
    model = make_model("gpt2")
    stacks = AdapterStacks(model, max_loaded=4)
    stacks.load(files[0], set())
    ids = some_ids(4, 5)
    expected = [logits_by_peft(make_model("gpt2"), adapter, ids) for adapter in files]
    read: dict[int, Any] = {}
    reader = threading.Thread(target=lambda: read.update({n: stacks.read(files[n]) for n in (1, 2, 3)}))
    reader.start()
    while reader.is_alive():
        assert_equal(logits_by_us(model, stacks, ["0"] * 4, ids), expected[0])
    for n, weights in read.items():
        stacks.attach(files[n], weights, {"0"})
    found = logits_by_us(model, stacks, ["0", "1", "2", "3"], ids)
    for row in range(4):
        assert_equal(found[row], expected[row][row])


def change_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def change_weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    return lambda folder: save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (pickle_weights, "weights are missing"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 64), "weights are missing or cannot be read"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "configuration is missing"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "configuration is missing"),
        (add_nan, "not finite"),
        (lambda folder: set_rank(folder, 7), "do not fit its base"),
        (lambda folder: set_rank(folder, 0), "configuration"),
        (change_config(peft_type="IA3"), "not LoRA but IA3"),
        (change_config(bias="all"), "trained biases"),
        (change_config(modules_to_save=["ln_f"]), "uses modules_to_save"),
        (change_config(trainable_token_indices=[1]), "uses trainable_token_indices"),
        (change_config(lora_bias=True), "uses lora_bias"),
        (change_config(init_lora_weights="pissa"), "initialisation changed"),
        (change_config(use_dora=True), "6 are missing and 0"),
        (change_config(target_modules=["c_attn", "c_fc"]), "0 are missing and 4"),
        (change_config(target_modules="(.*)*x"), "regular expression"),
        (change_config(rank_pattern={"(": 3}), "regular expression"),
        (change_weights(lambda all_of_them: dict(list(all_of_them.items())[1:])), "1 are missing and 0"),
        (change_weights(lambda all_of_them: {**all_of_them, "extra": torch.ones(1)}), "no part of a LoRA"),
        (change_weights(lambda _: {f"base_model.model.h.lora_embedding_{x}": torch.ones(1) for x in "AB"}), "embed"),
        (change_weights(lambda all_of_them: {n.replace("h.1", "h.9"): t for n, t in all_of_them.items()}), "fit"),
        (change_weights(lambda _: {"base_model.model.lm_head.lora_A.weight": torch.ones(1)}), "output head"),
        (change_weights(lambda _: {"base_model.model.transformer.ln_f.lora_A.weight": torch.ones(1)}), "not linear"),
        (change_weights(lambda all_of_them: {n: t.to(torch.int8) for n, t in all_of_them.items()}), "not finite"),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_sentence_and_leaves_the_model_as_it_was(
    damage: Callable[[Path], Any], sentence: str, tmp_path: Path
) -> None:
    broken = save_adapter(tmp_path / "broken", make_model("gpt2"), "gpt2")
    damage(broken.folder)
    model = make_model("gpt2")
    stacks = AdapterStacks(model, max_loaded=2)
    with pytest.raises(AdapterBroken, match=sentence) as caught:
        stacks.load(broken, set())
    assert str(tmp_path) not in caught.value.detail
    assert stacks.keys == []
    assert not any(isinstance(module, LoraLayer) for module in model.modules())


def test_tokens_that_no_segment_covers_are_an_error_and_not_a_wrong_answer(
    adapters: Callable[[str], dict[str, AdapterFiles]],
) -> None:
    model = make_model("gpt2")
    stacks = AdapterStacks(model, max_loaded=2)
    stacks.load(adapters("gpt2")["plain"], set())
    stacks.route([("plain", 2), (None, 3)])
    with torch.inference_mode(), pytest.raises(ValueError, match="cannot be told apart"):
        model(input_ids=some_ids(1, 6))
