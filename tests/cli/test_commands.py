"""The commands against the real API: what people see at 80 columns, what programs read, and how it fails."""

from __future__ import annotations

import http.server
import io
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import Result

from api.jobs.schemas import job_answer
from cli.following import view_for
from shared.database import Database
from shared.errors import OutOfMemory
from shared.models import AdapterVersion
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import Claim, JobRepository
from shared.repositories.workers import WorkerRepository
from shared.settings import Settings
from tests.api.fake_worker import FakeWorker, echo, refuse
from tests.api.test_quality import drifted
from tests.cli.conftest import Run, run_command
from tests.shared.test_answers_repository import add, row
from tests.waiting import until


def assert_failed(result: Result, sentence: str, exit_code: int = 1) -> None:
    """The exit code, one line on standard error, nothing else, no traceback."""
    assert result.exit_code == exit_code
    assert result.stderr == f"Error: {sentence}\n"
    assert isinstance(result.exception, SystemExit)


def assert_fits(output: str) -> None:
    assert [line for line in output.splitlines() if len(line) > 80] == []
    assert "\x1b" not in output


def publish(rows: Database, name: str, number: int, **metrics: float) -> None:
    with rows.write() as session:
        version = AdapterVersion(
            id=f"version-{name}-{number}", base_model="demo", metrics=metrics, config={}, size_bytes=1
        )
        AdapterRepository(session).publish("default", name, version)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "leave.md"
    path.write_text("# Leave\n\nEverybody has 28 days.\n")
    return path


@pytest.fixture
def training_id(finetuned: Run, document: Path) -> str:
    """A queued training job."""
    result = finetuned("train", document, "--adapter", "handbook", "--model", "demo", "--detach", "--json")
    assert result.exit_code == 0, result.output
    return str(json.loads(result.stdout)["training_job_id"])


# Documents


def test_upload_shows_each_document_once(finetuned: Run, document: Path) -> None:
    first, again = finetuned("upload", document), finetuned("upload", document)

    assert first.exit_code == again.exit_code == 0
    assert "leave.md" in first.stdout
    assert "known already" not in first.stdout
    assert "known already" in again.stdout
    assert_fits(again.stdout)


def test_questions_are_uploaded_and_listed_apart(finetuned: Run, document: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked.csv"
    asked.write_text("question,answer\nWhen?,1987\n")
    finetuned("upload", document)

    result = finetuned("upload", "--questions", asked)

    assert result.exit_code == 0, result.output
    listed = json.loads(finetuned("documents", "--questions", "--json").stdout)
    assert [(one["filename"], one["purpose"]) for one in listed] == [("asked.csv", "questions")]
    assert_failed(
        finetuned("upload", "--questions", document),
        "leave.md: Questions come as jsonl or csv, each with 'question' and 'answer'.",
    )


def test_a_bad_file_beside_a_good_one_fails_by_its_own_reason(finetuned: Run, document: Path, tmp_path: Path) -> None:
    bad = tmp_path / "photo.png"
    bad.write_bytes(b"\x89PNG")

    result = finetuned("upload", document, bad, "--json")

    assert [one["status"] for one in json.loads(result.stdout)] == ["uploaded", "rejected"]
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: photo.png: ")
    assert result.stderr.endswith(" (1 of 2 files were rejected)\n")


def test_a_file_that_is_not_there_is_named(finetuned: Run, tmp_path: Path) -> None:
    assert_failed(
        finetuned("upload", tmp_path / "no.txt"), f"{tmp_path / 'no.txt'} cannot be read: No such file or directory."
    )


# Training


def test_train_sends_what_was_asked_for_and_nothing_else(
    finetuned: Run, document: Path, rows: Database, service_url: str
) -> None:
    words = "--model demo --epochs 2 --learning-rate 0.001 --batch-size 3 --max-length 64 --rank 5 --detach --json"
    result = finetuned("train", document, "--adapter", "handbook", *words.split())

    created = json.loads(result.stdout)
    with rows.read() as session:
        config = JobRepository(session).get("default", created["training_job_id"]).parameters["config"]
    wanted = {"num_epochs": 2, "learning_rate": 0.001, "batch_size": 3, "max_length": 64, "lora_rank": 5}
    assert {name: config[name] for name in wanted} == wanted
    assert config["lora_alpha"] == 32, "a field that was not named keeps the service's default"


class PlayedWorker:
    """Works on the jobs of a training as a worker would, one report a time."""

    def __init__(self, rows: Database) -> None:
        self._rows = rows

    def claim(self, kind: str) -> Claim:
        claims: list[Claim] = []

        def try_it() -> bool:
            with self._rows.write() as session:
                claim = JobRepository(session).claim_next(kind, "played", 60.0)
            claims.extend([claim] if claim is not None else [])
            return bool(claims)

        until(try_it, 30)
        return claims[0]

    def report(self, claim: Claim, **progress: float) -> None:
        with self._rows.write() as session:
            JobRepository(session).report_progress(claim, progress)

    def succeed(self, claim: Claim, **result: Any) -> None:
        with self._rows.write() as session:
            JobRepository(session).succeed(claim, result)

    def fail(self, claim: Claim) -> None:
        with self._rows.write() as session:
            JobRepository(session).fail(claim, OutOfMemory())


def test_train_follows_to_the_live_version(finetuned: Run, document: Path, rows: Database) -> None:
    worker = PlayedWorker(rows)

    def work() -> None:
        worker.succeed(worker.claim("setup"))
        training = worker.claim("training")
        worker.report(training, step=5, total_steps=10, train_loss=2.5)
        metrics = {"base_loss": 4.0, "validation_loss": 1.25}
        worker.succeed(training, adapter="handbook", version=1, metrics=metrics)

    thread = threading.Thread(target=work)
    thread.start()
    result = finetuned("train", document, "--adapter", "handbook")
    thread.join()

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "handbook@1 is live.",
        "Held-out loss: 4.000 before, 1.250 after.",
        'Ask it: finetuned ask "…" --adapter handbook',
    ]
    assert "setup: succeeded" in result.stderr
    assert "training: succeeded" in result.stderr


def test_a_training_that_fails_ends_the_command_with_its_sentence(
    finetuned: Run, training_id: str, rows: Database
) -> None:
    worker = PlayedWorker(rows)
    worker.succeed(worker.claim("setup"))
    worker.fail(worker.claim("training"))

    result = finetuned("job", training_id, "--follow")

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"Error: {OutOfMemory.cure}"


def test_progress_without_a_terminal_is_a_line_with_the_loss(finetuned: Run, training_id: str, rows: Database) -> None:
    worker = PlayedWorker(rows)
    worker.succeed(worker.claim("setup"))
    training = worker.claim("training")
    worker.report(training, step=5, total_steps=10, train_loss=2.5, validation_loss=2.75, seconds_left=7.0)
    with rows.read() as session:
        job = job_answer(JobRepository(session).get("default", training_id), None).model_dump()
    shown = io.StringIO()

    with view_for(Console(file=shown, width=80)) as view:
        view.show(job)
        view.show(job)

    assert shown.getvalue() == "training 50 %: loss 2.500, held-out 2.750, 7 s left\n"
    listed = [line.split()[:5] for line in finetuned("jobs").stdout.splitlines()]
    assert [training_id, "running", "handbook", "5/10", "2.500"] in listed


def test_progress_in_a_terminal_is_a_bar_with_the_loss() -> None:
    progress = {"step": 5, "total_steps": 10, "train_loss": 2.5}
    job = {"id": "ftjob-1", "kind": "training", "status": "running", "progress": progress}
    shown = io.StringIO()

    with view_for(Console(file=shown, width=80, force_terminal=True, color_system=None)) as view:
        view.show(job)

    bar = [line for line in shown.getvalue().splitlines() if "training ━" in line][-1]
    assert "50%" in bar
    assert "loss 2.500" in bar


# Jobs


def test_jobs_are_listed_newest_first_and_fit_a_terminal(finetuned: Run, training_id: str) -> None:
    result = finetuned("jobs")

    assert_fits(result.stdout)
    header, first, second = (line.split() for line in result.stdout.splitlines())
    assert header == ["ID", "STATUS", "ADAPTER", "STEP", "LOSS", "CREATED"]
    if first[0].startswith("setup"):  # both were made within a millisecond, the resolution of SQLite's clock
        first, second = second, first
    assert first[:3] == [training_id, "queued", "handbook"]
    assert second[0].startswith("setup-")


def test_no_jobs_are_said_in_words(finetuned: Run) -> None:
    assert finetuned("jobs").stdout == "No job yet.\n"
    assert json.loads(finetuned("jobs", "--json").stdout) == []


def test_a_job_is_shown_with_what_happened_to_it(finetuned: Run, training_id: str) -> None:
    finetuned("cancel", training_id)

    result = finetuned("job", training_id)

    assert_fits(result.stdout)
    assert "cancelled" in result.stdout
    assert "The job is cancelled" in result.stdout


def test_a_job_shows_its_loss_as_a_curve(finetuned: Run, training_id: str, rows: Database) -> None:
    worker = PlayedWorker(rows)
    worker.succeed(worker.claim("setup"))
    claim = worker.claim("training")
    for step, loss in enumerate((4.0, 2.0, 1.0)):
        with rows.write() as session:
            JobRepository(session).add_event(
                claim, type="metrics", level="info", message=f"Step {step}", data={"step": step, "train_loss": loss}
            )

    result = finetuned("job", training_id)

    assert_fits(result.stdout)
    assert re.search(r"^Loss +4\.000 █▃▁ 1\.000$", result.stdout, re.MULTILINE)
    assert "Held out" not in result.stdout


def test_pause_and_resume_move_a_training(finetuned: Run, training_id: str) -> None:
    assert finetuned("pause", training_id).stdout == f"{training_id} is paused.\n"
    assert finetuned("resume", training_id).stdout == f"{training_id} is queued.\n"
    assert json.loads(finetuned("cancel", training_id, "--json").stdout)["status"] == "cancelled"


def test_the_service_s_own_sentence_is_the_error(finetuned: Run, training_id: str) -> None:
    finetuned("cancel", training_id)

    result = finetuned("cancel", training_id)

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: The job is cancelled; only a job that is")


def test_an_unknown_job_is_an_error(finetuned: Run) -> None:
    result = finetuned("job", "ftjob-nosuch")

    assert_failed(result, "No such job; GET /fine-tuning/jobs lists them.")


# Adapters


def test_adapters_and_their_versions_are_shown(finetuned: Run, rows: Database) -> None:
    publish(rows, "handbook", 1, validation_loss=2.5)
    publish(rows, "handbook", 2, validation_loss=1.25)

    listed, shown = finetuned("adapters"), finetuned("adapters", "handbook")

    assert_fits(listed.stdout + shown.stdout)
    assert listed.stdout.splitlines()[1].split()[:4] == ["handbook", "2", "2", "demo"]
    assert [line.split()[:4] for line in shown.stdout.splitlines()[1:]] == [
        ["handbook@2", "live", "demo", "1.250"],
        ["handbook@1", "demo", "2.500", shown.stdout.splitlines()[2].split()[3]],
    ]
    assert len(json.loads(finetuned("adapters", "handbook", "--json").stdout)["versions"]) == 2


def test_promote_and_rollback_move_the_live_version(finetuned: Run, rows: Database) -> None:
    publish(rows, "handbook", 1)
    publish(rows, "handbook", 2)

    assert finetuned("promote", "handbook", 1).stdout == "handbook@1 is live.\n"
    assert finetuned("rollback", "handbook").stdout == "handbook@2 is live.\n"


# Answers


def ready_to_answer(rows: Database) -> None:
    with rows.write() as session:
        WorkerRepository(session).beat("inference-1", "inference", {})


def test_ask_prints_the_answer_alone_on_standard_output(finetuned: Run, rows: Database, settings: Settings) -> None:
    ready_to_answer(rows)
    publish(rows, "handbook", 1)

    with FakeWorker(settings.resolved_redis_url, echo):
        result = finetuned("ask", "How many days?", "--adapter", "handbook")

    assert result.exit_code == 0, result.output
    assert result.stdout == "How many days?\n"
    assert result.stderr.startswith("— handbook@1, 2 tokens, ")


def test_ask_as_json_gives_the_whole_answer(finetuned: Run, rows: Database, settings: Settings) -> None:
    ready_to_answer(rows)

    with FakeWorker(settings.resolved_redis_url, echo) as worker:
        result = finetuned("ask", "Why?", "--model", "demo", "--max-new-tokens", "7", "--json")

    assert json.loads(result.stdout)["answer"] == "Why?"
    assert worker.questions[0].adapter is None
    assert worker.questions[0].sampling.max_new_tokens == 7


def test_a_refused_question_is_one_sentence(finetuned: Run, rows: Database, settings: Settings) -> None:
    ready_to_answer(rows)

    with FakeWorker(settings.resolved_redis_url, refuse("prompt_too_long", "The question is too long.")):
        result = finetuned("ask", "Why?")

    assert_failed(result, "The question is too long.")


def test_asking_with_no_worker_says_what_is_missing(finetuned: Run) -> None:
    result = finetuned("ask", "Why?")

    assert result.exit_code == 1
    assert "worker" in result.stderr


def test_answers_with_a_thumb_become_a_training_file(finetuned: Run, rows: Database, tmp_path: Path) -> None:
    add(rows, row(1, query="Who?", answer="Odile.", thumb="up"), row(2, query="Why?", answer=None, thumb="up"))
    path = tmp_path / "liked.jsonl"
    result = finetuned("answers", "export", "--thumb", "up", "-o", path, "--since", "2020-01-01")
    assert result.stdout.replace("\n", "") == f"1 lines are in {path}; 1 answers were left out."
    assert json.loads(path.read_text())["messages"][1] == {"role": "assistant", "content": "Odile."}
    assert_failed(finetuned("answers", "export", "-o", path), f"{path} cannot be written: File exists.")


def test_no_file_is_left_where_no_answer_gives_a_line(finetuned: Run, rows: Database, tmp_path: Path) -> None:
    add(rows, row(1, thumb="down"))
    path = tmp_path / "corrected.jsonl"
    result = finetuned("answers", "export", "-o", path)
    assert_failed(
        result,
        "No answer with a thumb down gives a line (1 were left out): FINETUNED_STORE_QUERIES must be on, and the "
        "feedback must say what the right answer is.",
    )
    assert not path.exists()


# The installation


def test_status_says_which_version_has_drifted(finetuned: Run, rows: Database) -> None:
    drifted(rows)

    said = finetuned("status").stderr.splitlines()[-1]

    assert said.startswith(
        "handbook@1: Its answers have drifted: the mean log-probability fell from -0.45 (200 answers"
    )


def test_status_names_what_is_live_and_what_is_missing(finetuned: Run, rows: Database) -> None:
    publish(rows, "handbook", 1)

    result = finetuned("status")

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "Trained     handbook@1",
        "Answers     not now",
        "Base model  demo",
        "Jobs        0 running, 0 queued, 0 paused",
        "Workers     0 inference, 0 training, 0 setup",
    ]
    assert "No inference worker is running" in result.stderr


def test_a_service_that_is_not_there_says_how_to_start_it() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"

        result = run_command("status", "--json", url=url)

    assert_failed(result, f"Nothing answers at {url}; start the service with `finetuned up`, or set FINETUNED_URL.", 3)


@pytest.fixture
def stranger_url() -> Iterator[str]:
    """A server that is no finetuned: it answers everything with a web page."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if "jobs" in self.path else 200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, format: str, *args: object) -> None:
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_another_server_is_not_mistaken_for_the_service(stranger_url: str) -> None:
    assert_failed(
        run_command("status", url=stranger_url),
        f"{stranger_url}/fine-tuning/status does not answer like finetuned; check FINETUNED_URL.",
    )
    assert_failed(
        run_command("jobs", url=stranger_url),
        f"{stranger_url}/fine-tuning/jobs?limit=20 answered 404; is FINETUNED_URL the address of finetuned?",
    )


def test_a_wrong_address_is_named() -> None:
    assert_failed(
        run_command("status", url="localhost:8000"),
        "FINETUNED_URL, from the environment or .env: String should match pattern '^https?://'.",
    )
