"""`finetuned demo`: shows the whole way, on a stack and a data folder of its own."""

from __future__ import annotations

import json
import shlex
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.commands.stack import show_addresses, stopping_on_signals
from cli.demo.figures import shortcomings
from cli.demo.handbook import FOLDER, Handbook, read_handbook
from cli.demo.report import print_report
from cli.demo.run import Outcome, run
from cli.demo.training import BASE_MODEL
from cli.errors import CommandError, DemoFailed, StackStopped
from cli.following import view_for
from cli.local_stack.local import LocalStack, Shape
from cli.output import console, note, print_line
from cli.settings import service_settings
from shared.settings import Settings

# No hub is asked; and in a model as small as the demo's, a second thread costs more than it gives as soon as
# anything else runs. The demo times its own questions, which an evaluation beside them would slow.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "FINETUNED_EVALUATE_AFTER_TRAINING": "false"}


def demo(
    data_dir: Annotated[Path, typer.Option(help="Each run makes a folder of its own in here.")] = Path(".data/demo"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The API's port; 0: any free one.")] = 0,
    handbook: Annotated[Path, typer.Option(help="Folder with documents/ and questions.jsonl.")] = FOLDER,
    is_kept: Annotated[bool, typer.Option("--keep", help="Let the stack run on until Ctrl-C.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures into this file.")] = None,
    is_verbose: Annotated[bool, typer.Option("--verbose", help="Show what every part writes into its log.")] = False,
) -> None:
    """Fine-tune a small model on an example handbook, and ask it before and after. Needs no network."""
    begun = time.monotonic()
    book = read_handbook(handbook)
    local = LocalStack(_settings(data_dir, port), Shape(env=_ENVIRONMENT, is_verbose=is_verbose), print_line)
    with stopping_on_signals(local.stack), local as stack:
        print_line(f"Starting a stack of its own on {local.settings.data_dir} …")
        if not (stack.start() and stack.wait_ready()):
            raise StackStopped()
        outcome = _run(local, book, begun)
        print_report(console(), book, outcome)
        if json_file is not None:
            _write(outcome, json_file)
        print_line("")
        if is_kept:
            show_addresses(local)
            print_line("Ctrl-C stops it.")
            stack.watch()
    _say_how_to_go_on(local, outcome)
    if failures := shortcomings(outcome.figures):
        raise DemoFailed(f"The demo fell short: {'; '.join(failures)}.")


def _settings(data_dir: Path, port: int) -> Settings:
    """Nothing is shared with another installation: not its data, its database, its Redis."""
    folder = data_dir / datetime.now().strftime("%Y%m%d-%H%M%S")
    own = {"data_dir": folder, "port": port, "base_model": BASE_MODEL, "database_url": None, "redis_url": None}
    return service_settings().model_copy(update=own)


def _run(local: LocalStack, book: Handbook, begun: float) -> Outcome:
    try:
        with view_for(console()) as view:
            return local.stack.watch_during(lambda: run(local.client, book, view, print_line, begun))
    except CommandError:
        note(f"The logs are in {local.log_dir}.")
        raise


def _write(outcome: Outcome, json_file: Path) -> None:
    try:
        json_file.write_text(json.dumps(outcome.figures.as_json(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{json_file} cannot be written: {error.strerror}.") from error


def _say_how_to_go_on(local: LocalStack, outcome: Outcome) -> None:
    folder = shlex.quote(str(local.settings.data_dir))
    print_line(f"Look further at what it made: finetuned up --base-model {BASE_MODEL} --data-dir {folder}")
    print_line(f'Then: finetuned ask "…" --adapter {outcome.version.partition("@")[0]}, or http://127.0.0.1:8000/docs')
