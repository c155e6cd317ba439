"""`finetuned sweep` and `sweeps` against the real API, with the work of the workers done by the test."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from cli.errors import CommandError
from cli.search_space import parse_space
from shared.database import Database
from shared.repositories.jobs import JobRepository
from tests.cli.conftest import Run
from tests.cli.test_commands import assert_fits
from tests.waiting import until


@pytest.mark.parametrize(
    ("typed", "domain"),
    [
        ("learning_rate=1e-5..1e-3:log", {"type": "float", "low": 1e-5, "high": 1e-3, "log": True}),
        ("lora_dropout=0.0..1", {"type": "float", "low": 0.0, "high": 1}),
        ("num_epochs=1..6", {"type": "int", "low": 1, "high": 6}),
        ("lora_rank=4..64:4", {"type": "int", "low": 4, "high": 64, "step": 4}),
        ("lora_rank=4,8,16", {"type": "choices", "values": [4, 8, 16]}),
        ("target_modules=auto,all-linear", {"type": "choices", "values": ["auto", "all-linear"]}),
        ('target_modules=["c_attn"],null', {"type": "choices", "values": [["c_attn"], None]}),
        ("use_dora=true,false", {"type": "choices", "values": [True, False]}),
    ],
)
def test_a_space_is_read_as_it_is_typed(typed: str, domain: dict[str, object]) -> None:
    assert parse_space([typed]) == {typed.partition("=")[0]: domain}


@pytest.mark.parametrize("typed", ["learning_rate", "=1..2", "a=", "a=1..x", "a=1..2:lag", "a=0.1..2:3", "a=..2"])
def test_what_is_no_space_is_a_sentence_that_says_how_to_write_one(typed: str) -> None:
    with pytest.raises(CommandError, match="FIELD="):
        parse_space([typed])


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "leave.md"
    path.write_text("# Leave\n\nEverybody has 28 days.\n")
    return path


def test_a_sweep_is_followed_to_its_version(finetuned: Run, document: Path, rows: Database) -> None:
    def work() -> None:
        for kind in ("setup", "sweep"):
            found = []

            def try_it(kind: str = kind, found: list[object] = found) -> bool:
                with rows.write() as session:
                    jobs = JobRepository(session)
                    claim = jobs.claim_next(kind, "test", 60.0)
                    if claim is not None and kind == "setup":
                        jobs.succeed(claim, {})
                    elif claim is not None:
                        _search(jobs, claim)
                    found.append(claim)
                return claim is not None

            until(try_it, 30)

    worker = threading.Thread(target=work)
    worker.start()
    done = finetuned("sweep", document, "--adapter", "leave", "--trials", 2, "--space", "learning_rate=1e-4..1e-3:log")
    worker.join()
    assert done.exit_code == 0, done.stderr
    assert_fits(done.stdout)
    assert [line.rstrip() for line in done.stdout.splitlines()] == [
        "TRIAL  STATE     LOSS    SETTINGS",
        "0*     complete  1.2500  learning_rate=0.001",
        "1      failed            It broke.",
        "What mattered: learning_rate 100 %",
        "leave@1 is published and not promoted.",
        "Why  It is no better.",
    ]
    listed = json.loads(finetuned("sweeps", "--json").stdout)
    assert [one["num_ended"] for one in listed] == [2]
    assert "1.250" in finetuned("sweeps").stdout
    assert finetuned("sweeps", listed[0]["id"]).stdout == done.stdout


def _search(jobs: JobRepository, claim: object) -> None:
    """What the sweep's worker leaves."""
    said = {"job_id": None, "steps": [], "seconds": 1.0}
    first = {"trial": 0, "state": "complete", "params": {"learning_rate": 0.001}, "value": 1.25, "error": None, **said}
    second = {"trial": 1, "state": "failed", "params": {"learning_rate": 0.002}, "value": None, "error": "It broke."}
    for data in (first, {**said, **second}):
        jobs.add_event(claim, type="message", level="info", message="Trial", data=data)  # type: ignore[arg-type]
    progress = {"step": 2, "total_steps": 2, "validation_loss": 1.25, "importances": {"learning_rate": 1.0}}
    jobs.report_progress(claim, progress)  # type: ignore[arg-type]
    decision = {"is_promoted": False, "reason": "It is no better."}
    jobs.succeed(claim, {"adapter": "leave", "version": 1, "decision": decision})  # type: ignore[arg-type]


def test_a_sweep_that_is_refused_is_one_sentence(finetuned: Run, document: Path) -> None:
    assert "No sweep yet." in finetuned("sweeps").stdout
    refused = finetuned("sweep", document, "--space", "rank=1..2")
    assert refused.exit_code == 1
    said = "Error: space: space names rank, which is no field of a training that can be searched."
    assert refused.stderr.splitlines()[-1] == said


def test_a_detached_sweep_says_its_id(finetuned: Run, document: Path) -> None:
    done = finetuned("sweep", document, "--detach", "--epochs", 1)
    assert done.stdout.startswith("Sweep  sweep-")
    shown = finetuned("sweeps", done.stdout.split()[1])
    assert shown.stdout == "No trial has begun yet.\n"
