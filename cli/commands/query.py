"""`finetuned query`: the documents or the tuned model answer, whichever knows more."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli.client import Json
from cli.commands.completion import adapter_names
from cli.commands.options import AsJson, given, open_client
from cli.output import note, print_json, print_line


def query(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    backend: Annotated[
        Literal["auto", "rag", "fine-tuned"], typer.Option(help="Who answers; auto: the documents where they fit.")
    ] = "auto",
    adapter: Annotated[
        str | None, typer.Option(help="Which adapter; default: the one published last.", autocompletion=adapter_names)
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Most pieces of documents to answer from.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the documents or the tuned model; the sources stand below the answer."""
    wanted: Json = {"query": question, "backend": backend, "adapter": adapter, "top_k": top_k}
    with open_client() as client:
        answer = client.query(given(wanted))
    if as_json:
        print_json(answer)
        return
    print_line(answer["answer"])
    note(f"— {answer['backend']}, {answer['latency_ms']:.0f} ms")
    for source in answer["sources"]:
        note(f"  {_place(source)}")


def _place(source: Json) -> str:
    """Where a source stands: file, heading and page, as far as they are known."""
    page = None if source.get("page") is None else f"page {source['page']}"
    return ", ".join(part for part in (source["filename"], source.get("heading"), page) if part)
