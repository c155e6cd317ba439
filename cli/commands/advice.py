"""`finetuned advise`: is it worth tuning, answering from the documents, both, or neither?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from cli.client import Json
from cli.commands.documents import upload_for_training
from cli.commands.evaluations import follow_evaluation, question_ids, show_evaluation
from cli.commands.options import AsJson, given, open_client
from cli.errors import INTERRUPTED
from cli.following import follow, succeeded, view_for
from cli.output import note, print_json


def advise(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Documents; default: all that are uploaded.")
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions with answers, jsonl or csv.")
    ] = None,
    num_questions: Annotated[
        int | None, typer.Option(min=1, max=1000, help="How many to make from the documents; default: 40, or none.")
    ] = None,
    question_method: Annotated[
        Literal["cloze", "model"] | None,
        typer.Option(help="Made by rule, or by FINETUNED_QUESTION_MODEL; default: by the model where one is set."),
    ] = None,
    adapter: Annotated[str, typer.Option(help="The name under which the version is published.")] = "advice",
    model: Annotated[str | None, typer.Option(help="The base model; default: the installation's.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Times that all examples are learned; default: 3.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: 2e-4.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find out whether to tune, to answer from the documents, both or neither."""
    wanted: Json = {
        "adapter": adapter,
        "model": model,
        "num_epochs": epochs,
        "learning_rate": learning_rate,
        "num_questions": num_questions,
        "question_method": question_method,
    }
    with open_client() as client:
        if files:
            wanted["document_ids"] = upload_for_training(client, files)
        if questions is not None:
            (wanted["question_document_id"],) = question_ids(client, [questions])
        jobs = client.advise(given(wanted))
        try:
            with view_for(Console(stderr=True, highlight=False)) as view:
                for job_id in (jobs["setup_job_id"], jobs["training_job_id"]):
                    succeeded(follow(client, str(job_id), view).job)
        except KeyboardInterrupt:
            note(f"The work goes on; its end: finetuned job {jobs['evaluation_job_id']} --follow")
            raise typer.Exit(INTERRUPTED) from None
        follow_evaluation(client, str(jobs["evaluation_job_id"]))
        evaluation = client.evaluation(str(jobs["evaluation_job_id"]))
    if as_json:
        print_json(evaluation)
    else:
        show_evaluation(evaluation)
