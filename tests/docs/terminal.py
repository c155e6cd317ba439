"""A reader's terminals: one where blocks are typed, whose variables stay, and one where a stack stays up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.docs.pages import Block, is_shown, typed
from tests.waiting import answers, until

_LINKED = ("examples", "deploy", "docker-compose.yml", "docker-compose.gpu.yml")


def stays(block: Block) -> bool:
    """Whether a block starts a stack, in the foreground, by its last line."""
    lines = typed(block.text, {}).splitlines()
    return lines[-1:] != [] and lines[-1].split()[:2] == ["finetuned", "up"]


class Terminal:
    """Runs a page's blocks in a folder that holds what the repository's does for a reader."""

    def __init__(self, folder: Path, root: Path, environment: Mapping[str, str], places: Mapping[str, str]) -> None:
        self._folder, self._places = folder, places
        self._environment = {**os.environ, **environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self._state = folder / ".terminal"
        self._state.write_text("")
        self._stack: subprocess.Popen[bytes] | None = None
        for name in _LINKED:
            (folder / name).symlink_to(root / name)

    def run(self, block: Block) -> None:
        """Types a block; it fails as a reader would see it fail."""
        text = typed(block.text, self._places)
        if block.language == "Ctrl-C":
            self.stop()
        elif block.language == "python":
            (self._folder / "block.py").write_text(text)
            self._shell("python block.py", block)
        elif stays(block):
            *before, last = text.splitlines()
            self._shell("\n".join(before), block)
            self._start(last)
        else:
            self._shell(text, block)

    def stop(self) -> None:
        """Ctrl-C in the terminal where the stack runs, if one does."""
        if self._stack is not None:
            self._stack.send_signal(signal.SIGINT)
            assert self._stack.wait(90) == 0, (self._folder / "up.log").read_text()
            self._stack = None

    def _shell(self, text: str, block: Block) -> None:
        script = f"set -euo pipefail; . {self._state}; set -a\n{text}\nset +a; export -p > {self._state}"
        ended = subprocess.run(
            ["bash", "-c", script], cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == 0, f"line {block.line}:\n{text}\n{ended.stdout}\n{ended.stderr}"
        if block.shown is not None:
            assert is_shown(ended.stdout, block.shown), f"line {block.line} shows other than:\n{ended.stdout}"

    def _start(self, command: str) -> None:
        self.stop()
        with (self._folder / "up.log").open("wb") as log:
            self._stack = subprocess.Popen(
                ["bash", "-c", f". {self._state}; exec {command}"],
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        until(self._is_ready, timeout_seconds=120)

    def _is_ready(self) -> bool:
        assert self._stack is not None
        assert self._stack.poll() is None, (self._folder / "up.log").read_text()
        return answers(f"http://127.0.0.1:{self._places['port']}/health/ready")
