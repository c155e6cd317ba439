"""Memory: what is left by the machine's and the container's word, what tensors take, and what a pass will take."""

from __future__ import annotations

import resource
from pathlib import Path

import psutil
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from shared.training_config import FineTuningConfig
from tests.finetuning.conftest import examples_for, make_examples
from tests.tiny_models import make_model
from worker.base_models.formats import Example, PreferencePair
from worker.finetuning.allocations import peak_allocated
from worker.finetuning.batches import Split
from worker.finetuning.footprint import MARGIN, SPARE_BYTES, footprint, needed_bytes
from worker.finetuning.learner import Learner
from worker.finetuning.lora import add_lora
from worker.finetuning.memory import available_bytes, container_rooms
from worker.finetuning.preflight import pass_lengths

CPU = torch.device("cpu")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_containers_limit_counts_what_can_be_dropped_as_left(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    group = tmp_path / "sys/fs/cgroup"
    write(group / "memory.max", "1000\n")
    write(group / "memory.current", "700\n")
    write(group / "memory.stat", "anon 400\ninactive_file 250\n")
    assert container_rooms(tmp_path) == [550]


def test_the_groups_around_a_group_limit_it_too(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/machine/job\n")
    group = tmp_path / "sys/fs/cgroup/machine"
    write(group / "memory.max", "5000\n")
    write(group / "memory.current", "4000\n")
    write(group / "job/memory.max", "max\n")
    write(group / "job/memory.current", "3000\n")
    assert container_rooms(tmp_path) == [1000]


def test_the_older_control_groups_are_read_as_well(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/\n")
    group = tmp_path / "sys/fs/cgroup/memory"  # inside a container its own group is the root
    write(group / "memory.limit_in_bytes", "900\n")
    write(group / "memory.usage_in_bytes", "950\n")
    write(group / "memory.stat", "inactive_file 1\ntotal_inactive_file 20\n")
    assert container_rooms(tmp_path) == [0]


def test_without_limits_the_machine_says_what_is_left(tmp_path: Path) -> None:
    assert container_rooms(tmp_path) == []
    assert 0 < available_bytes(CPU) <= psutil.virtual_memory().total


def test_the_process_own_limits_count() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    assert available_bytes(CPU) > 400_000_000
    resource.setrlimit(resource.RLIMIT_DATA, (psutil.Process().memory_info().data + 200_000_000, hard))
    try:
        assert available_bytes(CPU) == pytest.approx(200_000_000, rel=0.05)
        with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
            torch.empty(400_000_000, dtype=torch.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def test_tensors_are_counted_while_they_live() -> None:
    weight = torch.ones(100)

    def compute() -> None:
        view = weight.view(10, 10)  # its memory is not new
        two = [view * 2, view * 3]  # 800 bytes
        del two[0]
        one = two[0].add_(1) + 1  # 400 more, in the room of the first
        del one, two
        torch.zeros(150).numpy()  # 600, after those are gone

    assert peak_allocated(compute, [weight]) == 800


def learner_of(architecture: str, *, is_joined: bool | None = None, is_checkpointing: bool = False) -> Learner:
    config = FineTuningConfig(model_name="tiny", lora_rank=4)
    model = add_lora(make_model(architecture), config)
    if is_checkpointing:
        model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    return Learner(model, config, Split(1000, 100_000, is_joined))


def measured(learner: Learner, items: list[Example]) -> int:
    held = [*learner.model.parameters(), *learner.model.buffers()]
    with learner.running():
        return peak_allocated(lambda: learner.rehearse(items), held)


@pytest.mark.parametrize("is_checkpointing", [False, True])
@pytest.mark.parametrize(
    ("architecture", "is_joined"), [("gpt2", None), ("gpt2", False), ("llama", None), ("t5", False)]
)
def test_what_a_long_batch_takes_is_reckoned_from_short_ones(
    architecture: str, is_joined: bool | None, is_checkpointing: bool
) -> None:
    learner = learner_of(architecture, is_joined=is_joined, is_checkpointing=is_checkpointing)
    (long,) = [Example(one.input_ids * 5, one.labels * 5) for one in examples_for(architecture, 1)]
    assert len(long.input_ids) > 60
    items = [Example(long.input_ids, long.labels)] * 12
    with learner.running():
        reckoned = footprint(learner, Example(long.input_ids[:64], long.labels[:64]))
    lengths = pass_lengths(items, is_joined=learner.is_joined)
    estimate = reckoned.of(lengths, sum(one.num_supervised for one in items))
    assert 0.9 < estimate / measured(learner, items) < 1.3


@pytest.mark.parametrize("is_joined", [False, True])
def test_the_output_layer_is_measured_within_one_pass_of_what_the_split_allows(is_joined: bool) -> None:
    shape = GPT2Config(vocab_size=6000, n_positions=64, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    config = FineTuningConfig(model_name="tiny", lora_rank=4)
    learner = Learner(add_lora(GPT2LMHeadModel(shape), config), config, Split(1000, 50, is_joined))
    items = [Example(list(range(1, 25)), list(range(1, 25)))] * 2
    with learner.running():
        reckoned = footprint(learner, items[0])
    assert 0.9 < reckoned.of([24, 24], 48) / measured(learner, items) < 1.3


def test_an_estimate_leaves_a_margin_and_room_for_the_optimizer() -> None:
    learner, items = learner_of("gpt2"), make_examples(8)
    with learner.running():
        needed = needed_bytes(learner, items, pass_lengths(items, is_joined=True), enough=0)
    optimizer = 12 * sum(parameter.numel() for parameter in learner.parameters)
    assert needed >= MARGIN * (0.9 * measured(learner, items) + optimizer) + SPARE_BYTES


def test_what_surely_fits_is_not_measured_closely() -> None:
    learner, items = learner_of("gpt2"), make_examples(8)
    lengths = pass_lengths(items, is_joined=True)
    calls: list[int] = []
    learner.model.register_forward_pre_hook(lambda *_: calls.append(1))
    with learner.running():
        roughly = needed_bytes(learner, items, lengths, enough=2**40)
        assert len(calls) == 1
        closely = needed_bytes(learner, items, lengths, enough=0)
    assert roughly > closely


def test_a_preference_pair_is_two_sequences_of_a_pass() -> None:
    one, other = make_examples(2, shortest=10)
    longest = max(len(one.input_ids), len(other.input_ids))
    pair = PreferencePair(one, other)
    assert pass_lengths([pair, pair], is_joined=True) == [len(one.input_ids), len(other.input_ids)] * 2
    assert pass_lengths([pair, pair], is_joined=False) == [longest] * 4
