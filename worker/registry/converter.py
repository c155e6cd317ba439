"""llama.cpp's converter, where it is installed: a model's folder to one GGUF file."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from shared.errors import ConverterNotInstalled, ExportError
from shared.settings import Settings

NAMES = ("convert_hf_to_gguf.py", "convert-hf-to-gguf")
_POLL_SECONDS = 2.0

log = logging.getLogger(__name__)


def find_converter(settings: Settings) -> Path | None:
    """The script that the settings name, else the one on the PATH; None if there is none."""
    if settings.gguf_converter is not None:
        return settings.gguf_converter if settings.gguf_converter.is_file() else None
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return None if found is None else Path(found)


def convert(
    settings: Settings, model: Path, output: Path, quantization: str, *, should_go_on: Callable[[], bool]
) -> bool:
    """Writes `output`; False if it was stopped because `should_go_on()`, asked every other second, turned false."""
    script = find_converter(settings)
    if script is None:
        raise ConverterNotInstalled()
    log_file = output.with_name(f"{output.name}.log")
    with log_file.open("wb") as said:
        arguments = [str(model), "--outfile", str(output), "--outtype", quantization]
        process = subprocess.Popen([*_program(script), *arguments], stdout=said, stderr=said)
        while not _has_ended(process):
            if not should_go_on():
                process.kill()
                process.wait()
                return False
    if process.returncode != 0 or not output.is_file():
        last_words = log_file.read_bytes()[-2000:].decode(errors="replace")
        log.warning("the converter ended with %d: %s", process.returncode, last_words)
        raise ExportError(
            "llama.cpp's converter could not convert this model, most often because it does not know its "
            "architecture; the worker's log says why."
        )
    return True


def _program(script: Path) -> list[str]:
    return [sys.executable, str(script)] if script.suffix == ".py" or not os.access(script, os.X_OK) else [str(script)]


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True
