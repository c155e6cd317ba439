"""`finetuned doctor` against the real service."""

from __future__ import annotations

import json

from shared.database import Database
from shared.models import Document, Job
from shared.repositories.documents import DocumentRepository
from shared.repositories.jobs import JobRepository
from tests.cli.conftest import Run


def _lose_a_document(rows: Database) -> None:
    described = {"filename": "notes.txt", "kind": "txt", "size_bytes": 5, "sha256": "0" * 64}
    with rows.write() as session:
        DocumentRepository(session).add(Document(id="file-lost", project_id="default", **described))


def test_a_healthy_installation_exits_with_0(finetuned: Run) -> None:
    result = finetuned("doctor", "--deep")
    assert (result.exit_code, result.stdout) == (0, "Everything matches.\n")


def test_what_does_not_match_is_shown_within_80_columns(finetuned: Run, rows: Database) -> None:
    _lose_a_document(rows)
    result = finetuned("doctor")
    assert result.exit_code == 1
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stdout.splitlines() == [
        "error     document_missing  file-lost",
        "          Its file is gone.",
        "          --fix: Marks the document as failed; uploading the same file again",
        "          makes it whole.",
        "1 found, 0 repaired, 1 left. `finetuned doctor --fix` repairs 1.",
    ]


def test_fix_says_what_it_did_and_the_next_run_finds_nothing(finetuned: Run, rows: Database) -> None:
    _lose_a_document(rows)
    result = finetuned("doctor", "--fix")
    assert result.exit_code == 0
    assert "repaired  document_missing  file-lost\n" in result.stdout
    assert result.stdout.endswith("1 found, 1 repaired, 0 left.\n")
    assert finetuned("doctor").stdout == "Everything matches.\n"


def test_what_a_person_has_to_decide_exits_with_1_also_after_fix(finetuned: Run, rows: Database) -> None:
    with rows.write() as session:
        job_id = JobRepository(session).create("default", "setup", {}).id
        session.get_one(Job, job_id).queued_at = 1.0
    result = finetuned("doctor", "--fix")
    assert result.exit_code == 1
    assert "warning   no_worker  setup" in result.stdout
    assert "A person has to decide." in result.stdout


def test_programs_get_json(finetuned: Run, rows: Database) -> None:
    _lose_a_document(rows)
    result = finetuned("doctor", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["healthy"] is False
    assert [(one["code"], one["severity"], one["repaired"]) for one in report["findings"]] == [
        ("document_missing", "error", False)
    ]
