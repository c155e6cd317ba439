"""Two processes that train one adapter together, as `accelerate launch` starts them, against a single one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.tiny_models import save_model

TEXT = "\n\n".join(
    f"Paragraph {number} says that {number} and {number + 1} are {2 * number + 1}." for number in range(30)
)
LAUNCH = [
    "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_two_processes_train_what_one_trains(architecture: str, tmp_path: Path) -> None:
    config = {
        "model_name": str(save_model(architecture, tmp_path / "base", context=128)), "max_length": 48,
        "lora_dropout": 0.0, "num_epochs": 2, "batch_size": 2, "gradient_accumulation_steps": 2,
        "learning_rate": 5e-3, "lora_rank": 4, "checkpoint_interval_steps": 2,
    }  # fmt: skip
    base = json.loads((tmp_path / "base" / "config.json").read_text())
    silent = {name: 0.0 for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout_rate") if name in base}
    (tmp_path / "base" / "config.json").write_text(json.dumps(base | silent))
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "text.md").write_text(TEXT)
    for number, name, launch in ((1, "one", []), (2, "two", LAUNCH)):
        arguments = ["config.json", name, "text.md", "--checkpoints", f"{name}-checkpoints"]
        done = subprocess.run(
            [sys.executable, *launch, "-m", "worker.finetuning", *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert done.returncode == 0, done.stderr
        assert f"num_processes={number}" in done.stderr
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4
    metrics = [json.loads((tmp_path / name / "manifest.json").read_text())["metrics"] for name in ("one", "two")]
    assert metrics[0]["supervised_tokens"] == metrics[1]["supervised_tokens"]
    assert metrics[0]["trained_tokens"] == metrics[1]["trained_tokens"]
    assert metrics[1]["validation_loss"] == pytest.approx(metrics[0]["validation_loss"], abs=1e-4)
