"""How long a person waits for the service: from `finetuned up` to ready, from a claim to the first step, and from
the end of a training to the first answer by the new version."""

from __future__ import annotations

import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from bench.tables import publish, spread
from cli.client import Client
from cli.local_stack.local import LocalStack, Shape
from shared.database import Database
from shared.repositories.jobs import JobRepository
from shared.settings import Settings

STARTS = 5
TRAININGS = 5
DOCUMENTS = Path(__file__).parent.parent / "examples" / "handbook" / "documents"
OFFLINE = Shape(env={"FINETUNED_EVALUATE_AFTER_TRAINING": "false", "HF_HUB_OFFLINE": "1"})
QUICK = {"model": "demo", "num_epochs": 1, "batch_size": 8, "gradient_accumulation_steps": 1, "max_length": 128}


def main(options: Sequence[str] = ()) -> None:
    """Prints a row a wait, in seconds, with its target."""
    ArgumentParser(prog="python -m bench service", description=__doc__).parse_args(options)
    waits: dict[str, list[float]] = {"ready": [], "first_step": [], "first_answer": []}
    with tempfile.TemporaryDirectory(prefix="finetuned-bench-") as folder:
        for number in range(STARTS):
            is_last = number == STARTS - 1
            _start(Path(folder) / str(number), waits, TRAININGS if is_last else 0)
    rows = [
        [label, f"{found['median']:.2f}", f"{found['min']:.2f}–{found['max']:.2f}", f"{len(waits[name])}", target]
        for name, label, target in (
            ("ready", "`finetuned up` → ready", "15"),
            ("first_step", "training claimed → first step done, model loading included", "–"),
            ("first_answer", "training ended → first answer by the new version", "1"),
        )
        for found in [spread(waits[name])]
    ]
    header = ["seconds", "median", "min–max", "runs", "target"]
    publish("service", "Waiting for the service (demo model)", header, rows, {"seconds": waits})


def _start(data_dir: Path, waits: dict[str, list[float]], num_trainings: int) -> None:
    settings = Settings(data_dir=data_dir, port=0, base_model="demo")
    begun = time.monotonic()
    local = LocalStack(settings, OFFLINE, lambda line: None)
    with local as stack:
        stack.start()
        stack.wait_ready()
        waits["ready"].append(time.monotonic() - begun)
        if num_trainings:
            uploaded = local.client.upload(sorted(DOCUMENTS.iterdir()))
            document_ids = [one["id"] for one in uploaded if one["error"] is None]
            database = Database(local.settings.resolved_database_url)
            local.client.ask({"query": "Ready?", "model": "demo", "max_new_tokens": 1})
            for seed in range(num_trainings):
                _train(local.client, database, document_ids, seed, waits)


def _train(
    client: Client, database: Database, document_ids: list[str], seed: int, waits: dict[str, list[float]]
) -> None:
    created = client.setup({"document_ids": document_ids, "adapter": "bench", "seed": seed, **QUICK})
    while client.job(created["training_job_id"])["status"] not in ("succeeded", "failed"):
        time.sleep(0.02)
    answered_by = None
    while answered_by != seed + 1:
        answered_by = client.ask({"query": "Who?", "adapter": "bench", "max_new_tokens": 1})["version"]
    answered_at = time.time()
    with database.read() as session:
        jobs = JobRepository(session)
        job = jobs.get("default", created["training_job_id"])
        first = jobs.events(job.id, type="metrics")
        step = next(event for event in first if event.data.get("step") == 1)
        assert job.finished_at is not None
        assert job.started_at is not None
        waits["first_answer"].append(answered_at - job.finished_at)
        waits["first_step"].append(step.created_at - job.started_at)
