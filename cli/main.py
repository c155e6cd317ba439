"""The `finetuned` command: its names, and the one place where errors become a sentence and an exit code."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from cli.commands import adapters, answers, demo, doctor, documents, jobs, keys, registry, stack, training
from cli.output import note
from shared.errors import FinetunedError


class SentenceGroup(TyperGroup):
    """Shows an expected error as its sentence, and exits with 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FinetunedError as error:
            note(f"Error: {error.detail}")
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=SentenceGroup,
    help="Fine-tune a language model on your own documents, on your own machines. FINETUNED_URL names the service "
    "to talk to, FINETUNED_API_KEY its key; the default is the local stack that `finetuned up` starts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command("up")(stack.up)
app.command("demo")(demo.demo)
app.command("upload")(documents.upload)
app.command("train")(training.train)
app.command("jobs")(jobs.jobs)
app.command("job")(jobs.job)
app.command("cancel")(jobs.cancel)
app.command("pause")(jobs.pause)
app.command("resume")(jobs.resume)
app.command("ask")(answers.ask)
app.command("adapters")(adapters.adapters)
app.command("promote")(adapters.promote)
app.command("rollback")(adapters.rollback)
app.command("import")(registry.import_adapter)
app.command("export")(registry.export)
app.add_typer(keys.app, name="keys")
app.command("status")(stack.status)
app.command("doctor")(doctor.doctor)
