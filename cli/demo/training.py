"""How the demo trains: the settings with which the demo model learns the handbook within two minutes on two cores."""

from __future__ import annotations

from typing import Any

ADAPTER = "handbook"
BASE_MODEL = "demo"
MAX_NEW_TOKENS = 24  # the longest answer has 14

CONFIG: dict[str, Any] = {
    "num_epochs": 24,
    "learning_rate": 4e-3,
    "lora_rank": 32,
    "lora_alpha": 64,
    "lora_dropout": 0.0,
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "max_length": 128,
    "validation_split": 0.1,
}
