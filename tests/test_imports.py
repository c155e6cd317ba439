"""What each process may not load before somebody needs it: a start, and so every restart, costs its imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shared.quick_imports import quick_imports

_LEARNING = ("torch", "transformers", "peft", "datasets", "accelerate", "bitsandbytes", "numpy", "pandas", "pyarrow")
_SERVICE = ("fastapi", "lancedb")
_TERMINAL = ("celery.bin", "prompt_toolkit", "click_repl")
UNNEEDED = {
    "api.__main__": (*_LEARNING, *_TERMINAL, "lancedb", "alembic", "worker"),
    "worker.jobs.__main__": (*_LEARNING, *_SERVICE, *_TERMINAL, "alembic", "httpx"),
    "worker.inference.__main__": (*_LEARNING, *_SERVICE, *_TERMINAL, "alembic", "celery", "httpx"),
    "worker.retrieval.__main__": (*_LEARNING, *_SERVICE, *_TERMINAL, "alembic", "celery"),
}


@pytest.mark.parametrize("process", UNNEEDED)
def test_a_process_starts_without_what_it_does_not_need(process: str) -> None:
    assert _loaded_by(f"import {process}", UNNEEDED[process]) == "[]"


def test_a_worker_that_serves_has_loaded_no_command_line() -> None:
    serving = (
        "from celery import signals; from worker.jobs import tasks;"
        "stop = lambda **_: (_ for _ in ()).throw(SystemExit(0));"
        "signals.worker_init.connect(stop, weak=False)\n"
        "try: tasks.serve('training', {'training': 'tests.jobs.runners:run'})\n"
        "except SystemExit: pass"
    )
    assert _loaded_by(serving, (*_LEARNING, *_TERMINAL)) == "[]"


def test_a_trainer_loads_no_compiler_and_collects_nothing_while_it_imports() -> None:
    imports = (
        "import gc, worker.jobs.preload; assert not gc.isenabled()\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "import worker.finetuning.job"
    )
    assert _loaded_by(imports, ("torch._inductor.compile_fx", "lancedb", "trl", "fastapi")) == "[]"


def test_collecting_goes_on_after_the_imports() -> None:
    import gc

    with quick_imports():
        assert not gc.isenabled()
    assert gc.isenabled()


def _loaded_by(code: str, names: tuple[str, ...]) -> str:
    """Which of the modules `names` a new process has loaded after it has run `code`."""
    said = f"{code}\nimport sys; print([name for name in {names!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    return found.stdout.splitlines()[-1]
