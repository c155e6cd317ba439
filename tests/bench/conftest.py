"""A tiny base model to measure with, and a process that is afterwards as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import logging

from bench.models import Setting, save_base

SETTING = Setting(shape="tiny", num_threads=1, max_length=128)


@pytest.fixture
def _process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measuring prepares the process it runs in, which is normally a child."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    verbosity, num_threads = logging.get_verbosity(), torch.get_num_threads()
    yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()
    torch.set_num_threads(num_threads)


@pytest.fixture
def base(tmp_path: Path, _process: None) -> Path:
    save_base(SETTING, tmp_path / "base")
    return tmp_path / "base"
