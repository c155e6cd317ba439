"""`finetuned upload` and `finetuned documents`: what is learned from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli.client import Client, Json, check_accepted
from cli.commands.options import AsJson, NumRows, open_client
from cli.output import note, print_json, print_table, size, when

OfQuestions = Annotated[
    bool, typer.Option("--questions", help="Questions with their answers (jsonl, csv): asked, never learned from.")
]
Files = Annotated[list[Path], typer.Argument(metavar="FILE…", help="pdf, docx, html, md, txt, csv or jsonl files.")]


def upload(files: Files, questions: OfQuestions = False, as_json: AsJson = False) -> None:
    """Upload documents; the same bytes twice are one document."""
    with open_client() as client:
        uploaded = client.upload(files, "questions" if questions else "documents")
    if as_json:
        print_json(uploaded)
    else:
        print_table(("ID", "FILE", "KIND", "SIZE", ""), [_row(one) for one in uploaded], if_empty="No file.")
    check_accepted(uploaded)


def documents(
    limit: NumRows = 20,
    questions: OfQuestions = False,
    as_json: AsJson = False,
) -> None:
    """List the newest documents."""
    with open_client() as client:
        found = client.documents(limit, "questions" if questions else None)
    if as_json:
        print_json(found)
        return
    rows = [
        (one["id"], one["filename"], one["kind"], size(one["size_bytes"]), when(one["created_at"])) for one in found
    ]
    print_table(("ID", "FILE", "KIND", "SIZE", "UPLOADED"), rows, if_empty="No document yet; `finetuned upload FILE…`.")


def upload_for_training(client: Client, files: Sequence[Path]) -> list[str]:
    """The ids of the uploaded documents; all must be good."""
    uploaded = client.upload(files)
    check_accepted(uploaded)
    note(f"Uploaded {len(uploaded)} {'document' if len(uploaded) == 1 else 'documents'}.")
    return [str(one["id"]) for one in uploaded]


def _row(one: Json) -> tuple[object, ...]:
    if one["error"] is not None:
        return "-", one["filename"], one["kind"], size(one["size_bytes"]), one["error"]["detail"]
    return one["id"], one["filename"], one["kind"], size(one["size_bytes"]), "" if one["is_new"] else "known already"
