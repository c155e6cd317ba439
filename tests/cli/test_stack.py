"""The stack with real, tiny processes: kept alive, given up, and stopped without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.errors import ServiceUnreachable, StackFailed, StackStopped
from cli.local_stack.part import Part, RestartPolicy
from cli.local_stack.stack import Stack
from tests.cli.conftest import is_alive
from tests.waiting import until

HASTY = RestartPolicy(max_deaths=3, quick_seconds=1000, first_delay_seconds=0.01)
# Writes its own pid and that of a child, which sits in a session of its own.
WITH_CHILD = """
    import os, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
    with open(sys.argv[1], "a") as file:
        file.write(f"{os.getpid()}\\n{child.pid}\\n")
    time.sleep(1000)
"""
STUBBORN = """
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(sys.argv[1], "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(1000)
"""
ORDERLY = """
    import signal, sys, time
    def stop(*_):
        with open(sys.argv[1], "a") as file:
            file.write(sys.argv[2] + "\\n")
        sys.exit()
    signal.signal(signal.SIGTERM, stop)
    print("up", flush=True)
    time.sleep(1000)
"""

Pids = Callable[[str], list[int]]
Build = Callable[..., Stack]


def python(source: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def build(tmp_path: Path, said: list[str]) -> Iterator[Build]:
    """Makes stacks, and stops them after the test."""
    stacks = []

    def make(*parts: Part, missing: Callable[[], str | None] = lambda: None, is_verbose: bool = False) -> Stack:
        stack = Stack(
            parts, log_dir=tmp_path / "logs", missing=missing, say=said.append, policy=HASTY, is_verbose=is_verbose
        )
        stacks.append(stack)
        return stack

    yield make
    for stack in stacks:
        stack.request_kill()
        stack.stop()


def tend_until(stack: Stack, is_true: Callable[[], bool]) -> None:
    def look() -> bool:
        stack.tend()
        return is_true()

    until(look, 30)


def test_a_part_that_dies_is_started_again(build: Build, pids: Pids, tmp_path: Path, said: list[str]) -> None:
    stack = build(Part("worker", python(WITH_CHILD, tmp_path / "pids")))
    stack.start()
    until(lambda: len(pids("pids")) == 2, 30)

    os.kill(pids("pids")[0], signal.SIGKILL)

    tend_until(stack, lambda: len(pids("pids")) == 4)
    assert said == ["'worker' was killed by SIGKILL; starting it again in 0.01 s."]
    assert is_alive(pids("pids")[2])
    assert not is_alive(pids("pids")[1]), "what the dead part had started must not live beside the new one"


def test_a_part_that_keeps_dying_is_given_up_with_its_last_words(build: Build, said: list[str]) -> None:
    stack = build(Part("worker", python("raise SystemExit('no such device')")))
    stack.start()

    with pytest.raises(StackFailed, match="'worker' died 3 times in a row and is given up; its log is"):
        tend_until(stack, lambda: False)

    assert said.count("worker | no such device") == 3


def test_a_part_that_cannot_be_started_says_why(build: Build, said: list[str]) -> None:
    stack = build(Part("worker", ["/no/such/program"]))
    stack.start()

    with pytest.raises(StackFailed):
        tend_until(stack, lambda: False)

    assert "worker | cannot start /no/such/program: No such file or directory" in said


def test_stopping_leaves_no_process(build: Build, pids: Pids, tmp_path: Path) -> None:
    stack = build(Part("one", python(WITH_CHILD, tmp_path / "one")), Part("two", python(WITH_CHILD, tmp_path / "two")))
    stack.start()
    until(lambda: len(pids("one") + pids("two")) == 4, 30)

    stack.stop()

    assert [pid for pid in pids("one") + pids("two") if is_alive(pid)] == []


def test_a_part_that_will_not_stop_is_killed_after_its_grace(build: Build, pids: Pids, tmp_path: Path) -> None:
    stack = build(Part("stubborn", python(STUBBORN, tmp_path / "pids"), grace_seconds=0.2))
    stack.start()
    until(lambda: bool(pids("pids")), 30)

    stack.stop()

    assert not is_alive(pids("pids")[0])


def test_a_second_request_kills_at_once(build: Build, pids: Pids, tmp_path: Path) -> None:
    stack = build(Part("stubborn", python(STUBBORN, tmp_path / "pids"), grace_seconds=1000))
    stack.start()
    until(lambda: bool(pids("pids")), 30)

    stack.request_kill()
    stack.stop()

    assert not is_alive(pids("pids")[0])


def test_the_last_stage_stops_first(build: Build, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    parts = [
        Part(name, python(ORDERLY, stopped, name), stage=stage) for stage, name in enumerate(("redis", "worker", "api"))
    ]
    stack = build(*parts)
    stack.start()
    until(lambda: all((tmp_path / "logs" / f"{part.name}.log").read_text() for part in parts), 30)

    stack.stop()

    assert stopped.read_text().split() == ["api", "worker", "redis"]


def test_a_stage_waits_for_the_one_before(build: Build, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    write = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"
    stack = build(
        Part("migrations", python(write, flag), runs_once=True),
        Part("server", python(WITH_CHILD, tmp_path / "pids"), is_up=flag.exists),
        Part("worker", python("import os, sys; sys.exit(0 if os.path.exists(sys.argv[1]) else 9)", flag), stage=1),
    )

    assert stack.start()

    with pytest.raises(StackFailed):  # it ends three times, and each time the flag was there
        tend_until(stack, lambda: False)
    assert "exit code 9" not in (tmp_path / "logs" / "worker.log").read_text()


def test_a_failed_migration_ends_the_start(build: Build, tmp_path: Path) -> None:
    stack = build(
        Part("migrations", python("raise SystemExit(3)"), runs_once=True),
        Part("api", python(WITH_CHILD, tmp_path / "pids"), stage=1),
    )

    with pytest.raises(StackFailed, match="'migrations' ended with exit code 3"):
        stack.start()

    assert not (tmp_path / "pids").exists()


def test_a_killed_owner_leaves_no_process(pids: Pids, tmp_path: Path) -> None:
    owner = subprocess.Popen(
        python(
            """
            import sys
            from pathlib import Path
            from cli.local_stack.part import Part
            from cli.local_stack.stack import Stack
            folder = Path(sys.argv[1])
            parts = [
                Part("plain", [sys.executable, "-c", sys.argv[2], str(folder / "plain")]),
                Part("stubborn", [sys.executable, "-c", sys.argv[3], str(folder / "stubborn")], grace_seconds=0.2),
            ]
            stack = Stack(parts, log_dir=folder / "logs", missing=lambda: None, say=print)
            stack.start()
            stack.watch()
            """,
            tmp_path,
            textwrap.dedent(WITH_CHILD),
            textwrap.dedent(STUBBORN),
        )
    )
    until(lambda: len(pids("plain")) == 2 and len(pids("stubborn")) == 1, 30)
    everyone = pids("plain") + pids("stubborn")
    leashes = [int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in everyone]

    owner.kill()
    owner.wait()

    until(lambda: not any(map(is_alive, everyone + leashes)), 30)


def test_a_killed_leash_takes_its_part_along(build: Build, pids: Pids, tmp_path: Path) -> None:
    stack = build(Part("worker", python(STUBBORN, tmp_path / "pids")))
    stack.start()
    until(lambda: bool(pids("pids")), 30)
    part = pids("pids")[0]
    leash = int(Path(f"/proc/{part}/stat").read_text().rpartition(")")[2].split()[1])

    os.kill(leash, signal.SIGKILL)

    until(lambda: not is_alive(part), 30)


def test_it_says_what_is_missing_when_it_never_gets_ready(build: Build) -> None:
    stack = build(missing=lambda: "no inference worker")

    with pytest.raises(StackFailed, match=r"not ready after 0 s: no inference worker"):
        stack.wait_ready(timeout_seconds=0.2)


def test_a_stop_request_ends_the_wait(build: Build) -> None:
    stack = build(missing=lambda: "no inference worker")
    stack.request_stop()

    assert not stack.wait_ready()


def test_a_stack_that_fails_ends_the_work_beside_it(build: Build) -> None:
    stack = build(Part("worker", python("raise SystemExit(1)")))
    stack.start()
    is_over = threading.Event()

    with pytest.raises(StackFailed, match="given up"):
        stack.watch_during(is_over.wait)
    is_over.set()


def test_a_stop_request_ends_the_work_beside_it(build: Build) -> None:
    stack = build()
    is_over = threading.Event()

    def work() -> None:
        stack.request_stop()
        is_over.wait()

    with pytest.raises(StackStopped):
        stack.watch_during(work)
    is_over.set()


def test_work_beside_the_stack_gives_its_result_or_its_error(build: Build) -> None:
    def refuse() -> None:
        raise ServiceUnreachable()

    assert build().watch_during(lambda: 42) == 42
    with pytest.raises(ServiceUnreachable):
        build().watch_during(refuse)


def test_with_verbose_every_line_is_shown_once(build: Build, said: list[str]) -> None:
    stack = build(Part("worker", python("print('hello', flush=True); raise SystemExit(1)")), is_verbose=True)
    stack.start()

    with pytest.raises(StackFailed):
        tend_until(stack, lambda: False)

    assert said.count("worker | hello") == 3


def test_delays_between_restarts_double_up_to_a_limit() -> None:
    policy = RestartPolicy(first_delay_seconds=0.5, max_delay_seconds=3)

    assert [policy.delay_seconds(deaths) for deaths in (1, 2, 3, 4)] == [0.5, 1, 2, 3]
