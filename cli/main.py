"""The `finetuned` command: its names, and the one place where errors become a sentence and an exit code."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli.commands import (
    adapters,
    advice,
    answers,
    demo,
    doctor,
    documents,
    evaluations,
    jobs,
    keys,
    models,
    query,
    registry,
    stack,
    sweeps,
    training,
)
from cli.errors import EXIT_CODES, FAILED, INTERRUPTED, CommandError
from cli.output import note, print_line
from shared.errors import FinetunedError


class SentenceGroup(TyperGroup):
    """Shows an expected error as its sentence, and exits with its code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FinetunedError as error:
            note(f"Error: {error.detail}")
            raise typer.Exit(error.exit_code if isinstance(error, CommandError) else FAILED) from error
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=SentenceGroup,
    help="Fine-tune a language model on your own documents, on your own machines. FINETUNED_URL names the service "
    "to talk to, FINETUNED_API_KEY its key; the default is the local stack that `finetuned up` starts.",
    epilog="Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + ".",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        print_line(version("finetuned"))
        raise typer.Exit


@app.callback()
def _main(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What stands before every command."""


app.command("up")(stack.up)
app.command("demo")(demo.demo)
app.command("upload")(documents.upload)
app.command("documents")(documents.documents)
app.command("train")(training.train)
app.command("sweep")(sweeps.sweep)
app.command("sweeps")(sweeps.sweeps)
app.command("jobs")(jobs.jobs)
app.command("job")(jobs.job)
app.command("cancel")(jobs.cancel)
app.command("pause")(jobs.pause)
app.command("resume")(jobs.resume)
app.command("ask")(answers.ask)
app.add_typer(answers.app, name="answers")
app.command("query")(query.query)
app.command("models")(models.models)
app.command("adapters")(adapters.adapters)
app.command("promote")(adapters.promote)
app.command("policy")(adapters.policy)
app.command("rollback")(adapters.rollback)
app.command("advise")(advice.advise)
app.command("evaluate")(evaluations.evaluate)
app.command("evaluations")(evaluations.evaluations)
app.command("compare")(evaluations.compare)
app.command("import")(registry.import_adapter)
app.command("export")(registry.export)
app.add_typer(keys.app, name="keys")
app.command("status")(stack.status)
app.command("doctor")(doctor.doctor)
