"""What `finetuned up` checks before it starts anything, and what it gives each part."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.errors import CommandError, PortUnusable, StackRunning
from cli.local_stack import ports, redis
from cli.local_stack.local import LocalStack, Shape
from cli.local_stack.lock import FolderLock
from cli.local_stack.log import Log
from cli.local_stack.part import Part
from cli.local_stack.stack import Stack
from cli.main import app
from shared.settings import Settings


def up(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["up", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


def local_stack(data_dir: Path, said: list[str] | None = None, **values: object) -> LocalStack:
    settings = Settings().model_copy(update={"data_dir": data_dir, "port": 0, **values})
    return LocalStack(settings, Shape(training_workers=2), (said if said is not None else []).append)


def close(local: LocalStack) -> None:
    local.__exit__()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_is_said_before_anything_starts(taken_port: int, tmp_path: Path) -> None:
    outcome = up("--data-dir", tmp_path / "data", "--port", taken_port)

    assert outcome == (1, "", f"Error: Port {taken_port} is taken; choose another with --port.\n")
    assert not (tmp_path / "data" / "logs").exists()
    FolderLock(tmp_path / "data").release()  # and the folder is free again


def test_one_stack_runs_on_a_data_folder(tmp_path: Path) -> None:
    held = FolderLock(tmp_path)

    code, _, error = up("--data-dir", tmp_path, "--port", 0)

    held.release()
    assert code == 1
    assert error.startswith("Error: A stack already runs on this data folder")


def test_a_folder_is_held_until_the_last_process_of_a_stack_is_gone(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    stack = Stack(
        [Part("sleeper", ["sleep", "1000"])],
        log_dir=tmp_path / "logs",
        missing=lambda: None,
        say=print,
        inherited=[lock.descriptor],
    )
    stack.start()
    lock.release()  # as when the owner is killed

    with pytest.raises(StackRunning):
        FolderLock(tmp_path)
    stack.stop()
    FolderLock(tmp_path).release()


def test_a_data_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(CommandError, match="cannot be used: Not a directory"):
        FolderLock(tmp_path / "file" / "data")


def test_a_redis_that_does_not_answer_is_said_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as caught:
        local_stack(tmp_path, redis_url="redis://:secret@127.0.0.1:1/0")

    assert "No Redis answers at redis://…@127.0.0.1:1/0" in caught.value.detail
    FolderLock(tmp_path).release()


def test_a_named_redis_is_used_and_none_is_started(tmp_path: Path, redis_url: str) -> None:
    local = local_stack(tmp_path, redis_url=redis_url)

    parts = {keeper.part.name: keeper.part for keeper in local.stack.keepers}
    close(local)
    assert "redis" not in parts
    assert parts["api"].env["REDIS_URL"] == redis_url


def test_every_part_reads_the_same_settings(tmp_path: Path) -> None:
    local = local_stack(tmp_path, base_model="/models/own")

    parts = {keeper.part.name: keeper.part for keeper in local.stack.keepers}
    close(local)
    workers = ["batch", "inference-1", "retrieval", "setup", "sweep", "training-1", "training-2"]
    assert sorted(parts) == sorted(["api", "migrations", "redis", *workers])
    for name in set(parts) - {"redis"}:
        env = parts[name].env
        assert env["FINETUNED_DATA_DIR"] == str(tmp_path)
        assert env["DATABASE_URL"] == f"sqlite:///{tmp_path}/finetuned.db"
        assert env["FINETUNED_PORT"] == str(local.settings.port) != "0"
        assert {"/models/own", "demo"} <= set(json.loads(env["FINETUNED_ALLOWED_MODELS"]))


@pytest.mark.parametrize(("first", "expected"), [(0, {0}), (9100, set(range(9100, 9107)))])
def test_each_worker_shows_its_figures_on_a_port_of_its_own(tmp_path: Path, first: int, expected: set[int]) -> None:
    local = local_stack(tmp_path, metrics_port=first)

    parts = {keeper.part.name: keeper.part for keeper in local.stack.keepers}
    close(local)
    others = {"api", "migrations", "redis"}
    workers = [int(part.env["FINETUNED_METRICS_PORT"]) for name, part in parts.items() if name not in others]
    assert set(workers) == expected
    assert len(workers) == 7
    assert parts["api"].env["FINETUNED_METRICS_PORT"] == "0"


def test_the_embedded_redis_opens_to_this_user_alone_and_on_no_port(tmp_path: Path) -> None:
    broker = redis.Embedded(tmp_path, redis.socket_for(tmp_path))
    stack = Stack([broker.part], log_dir=tmp_path / "logs", missing=lambda: None, say=print)

    stack.start()

    socket_path = tmp_path / "redis" / "redis.sock"
    assert redis.answers(f"unix://{socket_path}")
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
    assert "port=0" in (tmp_path / "logs" / "redis.log").read_text()
    stack.stop()
    assert not redis.answers(broker.url)


@pytest.mark.parametrize("name", ["x" * 120, "with space", "with?sign"])
def test_a_path_that_does_not_suit_a_socket_is_replaced_and_said(tmp_path: Path, name: str) -> None:
    said: list[str] = []
    local = local_stack(tmp_path / name, said)
    close(local)

    path = Path(str(local.settings.redis_url).removeprefix("unix://"))
    assert len(str(path)) < 100
    assert said == [f"The path of the data folder does not suit a socket; Redis listens on {path}."]
    assert path.parent == redis.socket_for(tmp_path / name).parent, "the same folder the next time"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.parent.rmdir()


def test_port_zero_becomes_a_free_port() -> None:
    port = ports.check_free("127.0.0.1", 0)

    assert ports.check_free("127.0.0.1", port) == port


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(PortUnusable, match="not an address of this machine"):
        ports.check_free("203.0.113.1", 8000)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104
        ("::", "http://[::1]:80"),
        ("box", "http://box:80"),
    ],
)
def test_a_service_on_all_addresses_is_reached_on_loopback(host: str, url: str) -> None:
    assert ports.url_of(host, 80) == url


def test_a_log_gives_each_whole_line_once(tmp_path: Path) -> None:
    log = Log(tmp_path / "part.log")
    with log.open() as file:
        file.write(b"one\ntw")
        file.flush()
        assert log.new_lines() == ["one"]
        file.write(b"o\n\nthree")
        file.flush()
        assert log.new_lines() == ["two"]
    assert log.new_lines(is_ended=True) == ["three"]
    assert Log(log.path).new_lines() == [], "what an earlier stack wrote is not news"


def test_a_log_that_has_grown_large_is_put_aside_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "part.log"
    with path.open("wb") as file:
        file.truncate(11 * 1024 * 1024)

    Log(path).open().close()

    assert path.stat().st_size == 0
    assert (tmp_path / "part.log.1").exists()
