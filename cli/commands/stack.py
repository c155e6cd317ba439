"""`finetuned up` and `finetuned status`: the local stack, and how an installation is doing."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from cli.commands.options import AsJson, given, open_client
from cli.local_stack.local import LocalStack, Shape
from cli.local_stack.stack import Stack
from cli.output import note, print_fields, print_json, print_line
from cli.settings import service_settings

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(
    data_dir: Annotated[Path | None, typer.Option(help="Folder of everything that is kept; default: .data.")] = None,
    host: Annotated[str | None, typer.Option(help="Address the API listens on; default: 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Its port; default: 8000; 0: any free one.")
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="Model to use when none is named: a name or a path.")] = None,
    training_workers: Annotated[int, typer.Option(min=1, help="Trainings at the same time.")] = 1,
    inference_workers: Annotated[int, typer.Option(min=1, help="Processes that answer questions.")] = 1,
    is_verbose: Annotated[bool, typer.Option("--verbose", help="Show what every part writes into its log.")] = False,
) -> None:
    """Start the whole service on this machine, and keep it running until Ctrl-C."""
    begun = time.monotonic()
    wanted = {"data_dir": data_dir, "host": host, "port": port, "base_model": base_model}
    settings = service_settings().model_copy(update=given(wanted))
    shape = Shape(training_workers, inference_workers, is_verbose=is_verbose)
    local = LocalStack(settings, shape, say=print_line)
    with stopping_on_signals(local.stack), local as stack:
        print_line(f"Starting on {local.settings.data_dir} …")
        if stack.start() and stack.wait_ready():
            print_line(f"Ready after {time.monotonic() - begun:.1f} s.")
            show_addresses(local)
            for remark in local.remarks():
                print_line(remark)
            print_line("Ctrl-C stops it.")
            stack.watch()
        print_line("Stopping …")
    print_line("Stopped.")


def status(as_json: AsJson = False) -> None:
    """Show what is trained, what is running, and what is missing."""
    with open_client() as client:
        found = client.status()
    if as_json:
        print_json(found)
        return
    live = None if found["adapter"] is None else f"{found['adapter']}@{found['version']}"
    jobs = f"{found['running_jobs']} running, {found['queued_jobs']} queued, {found['paused_jobs']} paused"
    kinds = ("inference", "training", "setup")
    print_fields(
        {
            "Trained": live or "nothing yet",
            "Answers": "yes" if found["available"] else "not now",
            "Base model": found["base_model"],
            "Jobs": jobs,
            "Workers": ", ".join(f"{found[f'{kind}_workers']} {kind}" for kind in kinds),
        }
    )
    for sentence in found["missing"]:
        note(sentence)
    for one in found["quality"]:
        if one["drift"] is not None:
            note(f"{one['adapter']}@{one['version']}: {one['drift']}")


def show_addresses(local: LocalStack) -> None:
    """Where to look and what to type next."""
    url = local.client.url
    print_fields(
        {
            "Pages": f"{url}/ui/",
            "API": url,
            "Reference": f"{url}/docs",
            "Health": f"{url}/health/ready",
            "Base model": local.settings.base_model,
            "Data": local.settings.data_dir,
            "Logs": local.log_dir,
        }
    )


@contextmanager
def stopping_on_signals(stack: Stack) -> Iterator[None]:
    """The first Ctrl-C, SIGTERM or SIGHUP asks the stack to stop; the next one kills what still runs."""

    def receive(number: int, frame: FrameType | None) -> None:
        if stack.is_stopping:
            stack.request_kill()
        stack.request_stop()

    before = {number: signal.signal(number, receive) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
