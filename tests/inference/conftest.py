"""Tiny base models on disk, and a quiet single thread for torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.inference.tiny import save_model


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _peft_may_use_a_deprecated_name() -> Iterator[None]:
    """PEFT 0.21 asks transformers 5.23 for `is_gradient_checkpointing`, which became another name there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny GPT-2 with its tokenizer."""
    return save_model("gpt2", tmp_path_factory.mktemp("models") / "gpt2")
