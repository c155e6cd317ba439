"""A reader of documents can neither connect nor start anything, and says whether the kernel keeps it from it too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ENTER = """
import os, pickle, socket, subprocess
from worker.sandbox import enter_sandbox
outside = os.readlink("/proc/self/ns/net")
is_cut_off = enter_sandbox(5, 768 * 1024 * 1024)
"""


def said_in_sandbox(code: str) -> str:
    child = subprocess.run([sys.executable, "-c", ENTER + code], capture_output=True, text=True, timeout=60)
    return child.stdout + child.stderr


@pytest.mark.parametrize(
    "code",
    [
        "socket.socket()", "socket.create_connection(('127.0.0.1', 9))", "subprocess.run(['true'])",
        "os.system('true')", "os.fork()", "os.execv('/bin/true', ['true'])",
        "pickle.loads(b'cos\\nsystem\\n(S\"true\"\\ntR.')",
    ],
)  # fmt: skip
def test_it_can_neither_connect_nor_start_a_program(code: str) -> None:
    assert "a reader of documents may not do this" in said_in_sandbox(code)


def test_it_leaves_the_network_where_the_kernel_permits_it_and_says_so() -> None:
    code = "print(is_cut_off == (os.readlink('/proc/self/ns/net') != outside))"
    assert said_in_sandbox(code).strip() == "True"


def test_it_writes_no_byte(tmp_path: Path) -> None:
    opened = f"os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY)"
    code = f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); os.write({opened}, b'x')"
    assert "File too large" in said_in_sandbox(code)
