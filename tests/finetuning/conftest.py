"""Examples to learn, quick configurations, and tiny models on disk."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from shared.training_config import FineTuningConfig
from tests.tiny_models import save_model
from worker.base_models.formats import MASKED, Example


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def make_examples(number: int, *, seed: int = 0, shortest: int = 3, longest: int = 24) -> list[Example]:
    """Random rows of different lengths; the first third of each is context. Every row ends with the end token."""
    source = random.Random(seed)
    examples = []
    for _ in range(number):
        tokens = [source.randrange(1, 40) for _ in range(source.randrange(shortest, longest))] + [0]
        masked = max(1, len(tokens) // 3)
        examples.append(Example(tokens, [MASKED] * masked + tokens[masked:]))
    return examples


def make_pairs(number: int, *, seed: int = 0) -> list[Example]:
    """Encoder inputs with decoder targets."""
    sources, targets = make_examples(number, seed=seed), make_examples(number, seed=seed + 1)
    return [Example(source.input_ids, target.input_ids) for source, target in zip(sources, targets, strict=True)]


def examples_for(architecture: str, number: int, *, seed: int = 0) -> list[Example]:
    return make_pairs(number, seed=seed) if architecture == "t5" else make_examples(number, seed=seed)


@pytest.fixture
def quick_config() -> FineTuningConfig:
    """Two epochs in a moment, dropout on."""
    return FineTuningConfig(
        model_name="tiny", learning_rate=5e-3, num_epochs=2, batch_size=2, gradient_accumulation_steps=2, lora_rank=4,
        lora_alpha=8,
    )  # fmt: skip


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """A tiny GPT-2 with its tokenizer on disk, as `from_pretrained` wants it."""
    folder = tmp_path / "tiny-gpt2"
    save_model("gpt2", folder, context=128)
    return folder
