"""Sweeps as their worker leaves them: rows and events of a running stack's database."""

from __future__ import annotations

from typing import Any

from shared.database import Database
from shared.models import JobEvent
from shared.repositories.jobs import JobRepository
from shared.sweep_parameters import SweepParameters

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
        "trial": number,
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


def swept(rows: Database, num_trials: int = 12) -> str:
    """A sweep that has succeeded, whose best trial, the first, was held by the gate; its id."""
    with rows.write() as session:
        jobs = JobRepository(session)
        wanted = SweepParameters(setup_job_id="setup-1", adapter="handbook", num_trials=num_trials)
        jobs.create("default", "sweep", wanted.model_dump(mode="json"))
        claim = jobs.claim_next("sweep", "tests", 600.0)  # with its creation: no worker of the stack comes first
        assert claim is not None
        events = [JobEvent(job_id=claim.job_id, attempt=claim.attempt, type="message", message=f"Trial {number}",
                           data=trial(number)) for number in range(num_trials)]  # fmt: skip
        session.add_all(events)
        shares = {"learning_rate": 0.7, "lora_rank": 0.2, "num_epochs": 0.07, "lora_dropout": 0.03}
        jobs.report_progress(claim, {"step": num_trials, "validation_loss": 2.1, "importances": shares})
        jobs.succeed(claim, {"version": 2, "decision": DECISION})
    return claim.job_id
