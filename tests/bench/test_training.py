"""The training benchmark measures what it says: everybody learns the same tokens, and nobody's are counted twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench.ceiling import flops_per_token, layers_of, measure_ceiling
from bench.children import ChildFailed, forget_peak, in_child, peak_resident_bytes
from bench.models import Setting, add_plain_lora, load_base
from bench.paragraphs import LONGEST, SHORTEST, num_tokens, paragraphs, spread_sample
from bench.scoring import held_out_loss, score_adapters
from bench.trainers import CONTENDERS, OURS, Course, Stopwatch, measure_learning, measure_speed
from tests.bench.conftest import SETTING

ROOT = Path(__file__).parents[2]
ROWS = [row[:128] for row in paragraphs(40, 512, 0)]
PEERS = [name for name in CONTENDERS if name != OURS]

# What the peers' libraries warn of themselves is theirs to mend.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_process")]


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_learns_each_token_of_an_epoch_once(name: str, base: Path) -> None:
    if CONTENDERS[name].missing:
        pytest.skip(f"{CONTENDERS[name].missing} not installed")
    model = add_plain_lora(load_base(SETTING, base), SETTING)
    seen: list[int] = []

    def count(module: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        mask = inputs.get("attention_mask")
        seen.extend((inputs["input_ids"] if mask is None else inputs["input_ids"][mask.bool()]).flatten().tolist())

    model.register_forward_pre_hook(count, with_kwargs=True)
    watch = Stopwatch("cpu", 0.0)
    CONTENDERS[name].train(model, Course(ROWS[:16], 2, watch), SETTING)
    assert watch.num_epochs == 1  # the watch was over, so the second epoch was not begun
    assert watch.seconds > 0
    assert sorted(seen) == sorted(token for row in ROWS[:16] for token in row)


def test_the_figures_of_ours_are_those_of_whole_epochs(base: Path, tmp_path: Path) -> None:
    measured = measure_speed(OURS, SETTING, base, ROWS, 16, 0.0)
    assert measured.num_epochs == 1
    assert measured.num_tokens == num_tokens(spread_sample(ROWS, 16))
    assert measured.tokens_per_second == measured.num_tokens / measured.seconds
    assert measured.peak_resident >= measured.resident_before > 0


def test_everybody_begins_with_the_same_weights(base: Path) -> None:
    from bench.trainers import _our_lora

    ours = _our_lora(load_base(SETTING, base), SETTING).state_dict()
    peers = add_plain_lora(load_base(SETTING, base), SETTING).state_dict()
    assert ours.keys() == peers.keys()
    assert all(torch.equal(ours[name], peers[name]) for name in ours)


def test_an_adapter_is_scored_from_its_files(base: Path, tmp_path: Path) -> None:
    measure_learning(OURS, SETTING, base, ROWS[:32], tmp_path / "ours")
    losses = score_adapters({"base": None, "ours": tmp_path / "ours"}, SETTING, base, ROWS[32:])
    assert losses["ours"] < losses["base"]
    model = PeftModel.from_pretrained(load_base(SETTING, base), tmp_path / "ours")
    row = torch.tensor([ROWS[33]])
    with torch.no_grad():
        expected = float(model.eval()(input_ids=row, labels=row).loss)
    assert held_out_loss(model, [ROWS[33]]) == pytest.approx(expected, rel=1e-5)


def test_the_ceiling_counts_the_products_that_a_lora_step_makes(base: Path) -> None:
    """torch counts those of a real step: attention's own are batched ones and left out."""
    model = add_plain_lora(load_base(SETTING, base), SETTING).train()
    tokens = torch.tensor([ROWS[0]])
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, labels=tokens).loss.backward()
    made = counter.get_flop_counts()["Global"]
    with_weights = sum(flops for operator, flops in made.items() if str(operator) in ("aten.mm", "aten.addmm"))
    assert with_weights == flops_per_token(SETTING) * tokens.numel()


def test_the_ceiling_times_as_many_products_as_it_counts() -> None:
    from bench.ceiling import _products

    for shape in ("tiny", "tiny-llama"):
        setting = Setting(shape=shape)
        products = _products(layers_of(setting), setting, 32)
        flops = sum(2 * left.shape[0] * left.shape[1] * right.shape[1] for left, right, _ in products)
        assert flops == flops_per_token(setting) * 32


def test_the_ceiling_is_that_of_its_best_number_of_tokens() -> None:
    ceiling = measure_ceiling(SETTING, 0.0)
    assert ceiling.tokens_per_second == max(ceiling.tokens_per_second_by_pass.values()) > 0


def test_paragraphs_are_reproducible_and_spread_widely() -> None:
    rows = paragraphs(3000, 8192, 0)
    assert rows[:40] == paragraphs(40, 8192, 0)
    assert all(SHORTEST <= len(row) <= LONGEST and 0 < min(row) <= max(row) < 8192 for row in rows)
    assert 100 < num_tokens(rows) / len(rows) < 116


def test_a_sample_is_spread_as_the_whole_is() -> None:
    rows = paragraphs(3000, 512, 0)
    for count in (16, 64):
        sample = spread_sample(rows, count)
        assert len(sample) == count
        assert num_tokens(sample) / count == pytest.approx(num_tokens(rows) / len(rows), rel=0.03)


def test_a_forgotten_peak_is_not_reported_again() -> None:
    forget_peak()
    before = peak_resident_bytes()
    block = bytearray(b"x") * 300_000_000
    assert peak_resident_bytes() > before + 250_000_000
    del block
    forget_peak()
    assert peak_resident_bytes() < before + 150_000_000


def test_a_child_that_fails_is_told_of() -> None:
    with pytest.raises(ChildFailed, match="ValueError"):
        in_child(int, "no number")


def test_ours_runs_where_only_torch_transformers_peft_and_accelerate_are_installed(base: Path) -> None:
    command = [sys.executable, "-m", "tests.bench.bare_machine", str(base)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
