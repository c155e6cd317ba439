"""Sweeps as the API gives them."""

from __future__ import annotations

from typing import Any

DECISION: dict[str, Any] = {
    "is_promoted": False,
    "reason": "Held-out loss 2.1000 is not lower, or not by enough, than version 1's 2.0900; 120 examples.",
    "policy": {"mode": "if_better", "min_improvement": 0.0, "min_examples": 20, "against": ["base", "live"]},
    "comparisons": [
        {
            "rival": rival,
            "version": version,
            "rival_loss": rival_loss,
            "loss": 2.1,
            "difference": {
                "value": 2.1 - rival_loss,
                "low": 2.05 - rival_loss,
                "high": 2.15 - rival_loss,
                "num_examples": 120,
            },
            "is_better": rival == "base",
        }
        for rival, version, rival_loss in (("base", None, 2.9), ("live", 1, 2.09))
    ],
}  # fmt: skip


def trial(number: int) -> dict[str, Any]:
    """Every fourth was pruned, the eighth failed; the others end between 2.1 and 3."""
    state = "failed" if number == 7 else "pruned" if number % 4 == 3 else "complete"
    value = None if state == "failed" else 2.1 + ((number * 37) % 100) / 110
    num_steps = 3 if state == "pruned" else 8
    return {
        "number": number,
        "state": state,
        "job_id": f"ftjob-{number}",
        "params": {
            "learning_rate": 2e-5 * 1.05 ** (number % 90),
            "lora_rank": (4, 8, 16, 32)[number % 4],
            "lora_dropout": (number % 31) / 100,
            "num_epochs": 1 + number % 6,
        },
        "value": value,
        "steps": [] if value is None else [[10 * step, value + 1 / step] for step in range(1, num_steps + 1)],
        "seconds": 12.5 + number % 9,
        "error": "There is no memory for it." if state == "failed" else None,
    }  # fmt: skip


def sweep(num_trials: int = 12, **values: Any) -> dict[str, Any]:
    """One that has succeeded; its best trial was held by the gate."""
    trials = [trial(number) for number in range(num_trials)]
    first = trials[0]
    best = {"number": 0, "params": first["params"], "value": first["value"], "version": 2, "decision": DECISION}
    return {
        "id": "sweep-1",
        "status": "succeeded",
        "adapter": "handbook",
        "parameters": {"num_trials": num_trials},
        "trials": trials,
        "best": best,
        "importances": {"learning_rate": 0.7, "lora_rank": 0.2, "num_epochs": 0.07, "lora_dropout": 0.03},
        "num_trials": num_trials,
        "created_at": 1_790_000_000,
        "finished_at": 1_790_000_900,
        "error": None,
        **values,
    }
