"""The inference benchmark measures what it says: everybody answers the same requests, and whole."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from bench.adapters import RANK, save_adapters
from bench.bandwidth import bytes_per_step, read_bandwidth
from bench.engines import Request
from bench.generators import CONTENDERS, INT8, OURS, Ours, Scene, timed
from bench.growth import Load, measure_growth
from bench.inference import _parsed, agreement, measure, requests_of
from bench.models import load_base, save_base
from tests.bench.conftest import SETTING

# What the peers' libraries warn of themselves is theirs to mend.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_process")]

OPTIONS = [
    "--quick", "--shapes", "tiny", "--threads", "1", "--streams", "4", "--adapters", "3", "--bandwidth-seconds", "0",
    "--bandwidth-bytes", "65536", "--prompt-tokens", "6", "--new-tokens", "4",
]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved once: no test changes it."""
    folder = tmp_path_factory.mktemp("inference") / "base"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        save_base(SETTING, folder)
    return folder


@pytest.fixture(scope="module")
def adapters(base: Path) -> list[Path]:
    return save_adapters(load_base(SETTING, base), base.parent / "adapters", 3)


@pytest.fixture
def chosen() -> Namespace:
    return _parsed(OPTIONS)


def test_every_contender_gives_the_tokens_of_generate(base: Path, adapters: list[Path], chosen: Namespace) -> None:
    found = measure(SETTING, chosen, base, adapters)
    assert found.failed == {}
    assert found.runs.keys() == {name for name in CONTENDERS if "int8" not in name}
    for name in (OURS, "ours-one", "ours-base", "ours-stream", "ours-stream-one", "continuous"):
        equal = agreement(name, found)
        assert equal is not None
        assert equal[0] == equal[1] > 0, name
    answers = [tuple(answer) for answer in found.runs[OURS][0].answers]
    assert len(set(answers)) == len(answers)
    assert found.bandwidths[0] > 0
    assert found.ceiling(16) == pytest.approx(16 * found.ceiling(1))


def test_int8_weights_are_a_contender_of_their_own(base: Path, adapters: list[Path]) -> None:
    chosen = _parsed([*OPTIONS, "--weights", "fp32", "int8"])
    assert INT8 in chosen.contenders
    found = measure(SETTING, Namespace(**{**vars(chosen), "contenders": [INT8]}), base, adapters)
    assert found.failed == {}
    assert found.runs[INT8][0].num_tokens == 4 * 4


def test_a_contender_that_fails_is_told_of_and_the_others_go_on(
    base: Path, adapters: list[Path], chosen: Namespace
) -> None:
    few = Namespace(**{**vars(chosen), "contenders": [OURS, "generate"]})
    found = measure(SETTING, few, base, [base])  # a folder without an adapter
    assert OURS in found.failed
    assert found.runs.keys() == {"generate"}


def test_requests_are_the_same_for_all_and_differ_from_round_to_round(
    base: Path, adapters: list[Path], chosen: Namespace
) -> None:
    scene = Scene(SETTING, base, adapters, chosen.streams, 16)
    ours, mixed = (requests_of(CONTENDERS[name], scene, chosen, 0) for name in (OURS, "peft-mixed"))
    assert ours == mixed
    assert [request.adapter for request in ours] == [*adapters, adapters[0]]
    prompts = [
        tuple(request.prompt)
        for name in (OURS, "ours-one", "ours-base", "ours-stream", "ours-stream-one")
        for number in (-1, 0, 1)
        for request in requests_of(CONTENDERS[name], scene, chosen, number)
    ]
    assert len(set(prompts)) == len(prompts)  # a cache of prefixes has nothing to give


def test_an_answer_that_is_too_short_is_not_measured(base: Path, adapters: list[Path], chosen: Namespace) -> None:
    scene = Scene(SETTING, base, adapters, chosen.streams, 16)
    short = timed(lambda system, requests: [answer[:-1] for answer in Ours.together(system, requests)])
    with pytest.raises(ValueError, match="answers of"):
        short(Ours(scene), [Request([2, 3], 4)])


def test_adapters_differ_and_hold_no_zero_matrix(base: Path, adapters: list[Path]) -> None:
    weights = [load_file(folder / "adapter_model.safetensors") for folder in adapters]
    config = json.loads((adapters[0] / "adapter_config.json").read_text())
    assert (config["r"], sorted(config["target_modules"])) == (RANK, ["c_attn", "c_fc", "c_proj"])
    assert all(bool(tensor.any()) for one in weights for tensor in one.values())
    assert not any(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    tokens = torch.tensor([[2, 3, 4]])
    logits = [PeftModel.from_pretrained(load_base(SETTING, base), str(one))(tokens).logits for one in adapters[:2]]
    assert not torch.allclose(logits[0], logits[1], atol=1e-2)


def test_a_step_reads_every_weight_that_it_multiplies_with_once(base: Path) -> None:
    model = load_base(SETTING, base)
    layers = 64 * (3 + 1 + 4 + 4) * 64 + (3 + 1 + 4 + 1) * 64  # c_attn, c_proj, c_fc, c_proj, and their biases
    assert bytes_per_step(model) == 4 * (2 * layers + 512 * 64)
    assert read_bandwidth(SETTING, 0.0, 65536) > 0


def test_growth_is_that_of_the_load(base: Path, adapters: list[Path]) -> None:
    few, many = (measure_growth(SETTING, base, adapters[:1], Load(1, number, 2, 8)) for number in (1, 4))
    assert (few.num_adapters, few.num_sequences, many.num_sequences) == (1, 1, 4)
    assert few.step_seconds > 0
    assert many.base_bytes > 0
