"""The real command as a process: in a terminal of 80 columns, in a pipe, interrupted, completed by a shell."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest
import typer

from cli.errors import EXIT_CODES
from cli.main import app
from shared.database import Database
from shared.models import Job
from shared.repositories.jobs import JobRepository
from tests.cli.test_commands import PlayedWorker, assert_fits, publish
from tests.waiting import until

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environment(url: str, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
    return {**kept, "FINETUNED_URL": url, "PYTHONUTF8": "1", **more}


def start(url: str, *words: object, **more: str) -> subprocess.Popen[str]:
    """The command without a terminal."""
    command = [sys.executable, "-m", "cli", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(url, **more)
    )


def run(url: str, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
    with start(url, *words, **more) as process:
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


class Terminal:
    """The command in a terminal of 80 × 24."""

    def __init__(self, url: str, *words: object) -> None:
        self._ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [sys.executable, "-m", "cli", *map(str, words)]
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(url, TERM="xterm"),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
        )
        os.close(theirs)
        self.shown = ""

    def read(self) -> bool:
        """Whether there was more to read."""
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # the other end has been closed
            data = b""
        self.shown += data.decode(errors="replace")
        return bool(data)

    def read_until(self, words: str) -> None:
        while words not in _ESCAPES.sub("", self.shown):
            assert self.read(), self.shown

    def end(self) -> int:
        while self.read():
            pass
        os.close(self._ours)
        return self.process.wait(60)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "leave.md"
    path.write_text("# Leave\n\nEverybody has 28 days.\n")
    return path


def training_of(rows: Database, worker: PlayedWorker) -> str:
    """Plays the setup that was just created; the training's id."""
    worker.succeed(worker.claim("setup"))
    claim = worker.claim("training")
    worker.report(claim, step=5, total_steps=10, train_loss=2.5, validation_loss=2.75, seconds_left=7.0)
    return claim.job_id


def test_in_a_terminal_a_training_is_a_bar_that_fits_and_ctrl_c_leaves_it_running(
    service_url: str, rows: Database, document: Path
) -> None:
    terminal = Terminal(service_url, "train", document, "--adapter", "handbook", "--model", "demo")
    worker = PlayedWorker(rows)
    terminal.read_until("setup")
    job_id = training_of(rows, worker)
    terminal.read_until("loss 2.500, held-out 2.750, 7 s left")
    terminal.process.send_signal(signal.SIGINT)

    assert terminal.end() == 130
    lines = _ESCAPES.sub("", terminal.shown).replace("\r", "\n").splitlines()
    assert [line for line in lines if len(line.rstrip()) > 80 and job_id not in line] == []
    said = " ".join(lines)
    assert f"finetuned job {job_id} --follow" in said
    assert f"finetuned cancel {job_id}" in said
    with rows.read() as session:
        assert session.get_one(Job, job_id).status == "running"


def test_without_a_terminal_a_training_is_lines_on_standard_error_and_json_alone_on_standard_output(
    service_url: str, rows: Database, document: Path
) -> None:
    process = start(service_url, "train", document, "--adapter", "handbook", "--model", "demo", "--json")
    worker = PlayedWorker(rows)
    until(lambda: num_jobs(rows) == 2, 30)
    worker.succeed(worker.claim("setup"))
    claim = worker.claim("training")
    worker.report(claim, step=5, total_steps=10, train_loss=2.5)
    publish(rows, "handbook", 1)
    worker.succeed(claim, adapter="handbook", version=1)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert json.loads(out) == {"adapter": "handbook", "version": 1}
    assert "training: succeeded" in err
    assert_fits(err)


@pytest.mark.parametrize("more", [{}, {"TERM": "dumb"}, {"NO_COLOR": "1"}, {"COLUMNS": "80"}])
def test_in_a_pipe_there_is_no_control_character_and_no_id_is_cut(
    service_url: str, rows: Database, document: Path, more: dict[str, str]
) -> None:
    made = run(service_url, "train", document, "--adapter", "a" * 40, "--model", "demo", "--detach", "--json", **more)
    ids = json.loads(made.stdout)
    listed = run(service_url, "jobs", **more)
    assert listed.returncode == 0
    assert_fits(listed.stdout)
    for name in ("job_id", "training_job_id"):
        assert ids[name] in listed.stdout


@pytest.mark.parametrize("command", ["jobs", "adapters", "documents", "models", "status"])
def test_a_list_as_json_is_json_and_nothing_else(service_url: str, command: str) -> None:
    found = run(service_url, command, "--json")
    assert found.returncode == 0, found.stderr
    json.loads(found.stdout)
    assert found.stderr == ""


def test_exit_codes_are_those_of_the_table(service_url: str) -> None:
    assert run(service_url, "jobs").returncode == 0
    assert run(service_url, "job", "ftjob-none").returncode == 1
    assert run(service_url, "jobs", "--limit", "many").returncode == 2
    away = run("http://127.0.0.1:1", "jobs")
    assert (away.returncode, away.stdout) == (3, "")
    assert away.stderr.startswith("Error: Nothing answers at http://127.0.0.1:1; start the service with")
    assert set(EXIT_CODES) == {0, 1, 2, 3, 130}


def complete(url: str, line: str) -> list[str]:
    """What bash would offer at the end of the line."""
    words = line.split(" ")
    asked = {"_FINETUNED_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    program = "from cli.main import app; app(prog_name='finetuned')"
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment(url, **asked), capture_output=True, text=True, timeout=60
    )
    assert found.stderr == ""
    return found.stdout.split()


def test_the_shell_completes_commands_names_and_ids(service_url: str, rows: Database, document: Path) -> None:
    publish(rows, "handbook", 1)
    publish(rows, "hands", 1)
    publish(rows, "other", 1)
    made = run(service_url, "train", document, "--model", "demo", "--detach", "--json")
    job_id = json.loads(made.stdout)["training_job_id"]

    assert complete(service_url, "finetuned roll") == ["rollback"]
    assert sorted(complete(service_url, "finetuned promote hand")) == ["handbook", "hands"]
    assert complete(service_url, f"finetuned cancel {job_id[:-3]}") == [job_id]
    assert complete("http://127.0.0.1:1", "finetuned promote hand") == []


def test_every_command_says_what_it_does_and_gives_json() -> None:
    def walk(group: object, path: str) -> None:
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            if hasattr(command, "commands"):
                walk(command, f"{path}{name} ")
                continue
            assert command.help, path + name
            options = [option for one in command.params for option in one.opts]
            assert "--json" in options or name == "up", path + name

    walk(typer.main.get_command(app), "")


def num_jobs(rows: Database) -> int:
    with rows.read() as session:
        return sum(JobRepository(session).count(None).values())
