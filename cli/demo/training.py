"""How the demo trains: the settings with which the demo model learns the handbook within two minutes on two cores."""

from __future__ import annotations

from typing import Any

ADAPTER = "handbook"
BASE_MODEL = "demo"
MAX_NEW_TOKENS = 24  # the longest answer has 14

CONFIG: dict[str, Any] = {
    "num_epochs": 25,
    "learning_rate": 3e-3,
    "lora_rank": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "batch_size": 8,
    "gradient_accumulation_steps": 1,
    "max_length": 256,
    "validation_split": 0.1,
}
