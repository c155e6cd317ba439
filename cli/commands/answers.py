"""`finetuned ask`: a question, and its answer as it is written. `finetuned answers`: what their readers thought."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.client import Client, Json
from cli.commands.completion import adapter_names
from cli.commands.options import AsJson, given, open_client
from cli.errors import CommandError, RequestRefused
from cli.output import note, print_json, print_line

app = typer.Typer(help="Answers that were given: those with a thumb become a training file.")


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; it must not be there yet.")],
    thumb: Annotated[Literal["down", "up"], typer.Option(help="Corrected answers, or those that were liked.")] = "down",
    kind: Annotated[
        Literal["supervised", "preference"],
        typer.Option("--format", help="Chat lines, or the correction preferred to the answer (for DPO)."),
    ] = "supervised",
    adapter: Annotated[str | None, typer.Option(help="Only its answers.", autocompletion=adapter_names)] = None,
    since: Annotated[datetime | None, typer.Option(help="Only answers from then on, in local time.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write answers with a thumb into a training file, for `finetuned train` or /v1/files."""
    wanted = {"thumb": thumb, "format": kind, "adapter": adapter, "since": since and since.timestamp()}
    with open_client() as client:
        num_lines, num_left_out = client.export_answers(given(wanted), output)
    if not num_lines:
        output.unlink()
        raise CommandError(
            f"No answer with a thumb {thumb} gives a line ({num_left_out} were left out): {_NEEDED[thumb]}"
        )
    if as_json:
        print_json({"output": str(output), "lines": num_lines, "left_out": num_left_out})
    else:
        print_line(f"{num_lines} lines are in {output}; {num_left_out} answers were left out.")


_NEEDED = {
    "down": "FINETUNED_STORE_QUERIES must be on, and the feedback must say what the right answer is.",
    "up": "FINETUNED_STORE_QUERIES must have been on.",
}


def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    adapter: Annotated[
        str | None, typer.Option(help="Which adapter; default: the one published last.", autocompletion=adapter_names)
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Which of its versions; default: the live one.")] = None,
    model: Annotated[str | None, typer.Option(help="Ask this base model itself instead of an adapter.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of the answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 always takes the likeliest token.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question; the answer is printed as it comes."""
    wanted: Json = {
        "query": question,
        "adapter": adapter,
        "version": version,
        "model": model,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
    }
    body = given(wanted)
    with open_client() as client:
        if as_json:
            print_json(client.ask(body))
        else:
            _stream(client, body)


def _stream(client: Client, body: Json) -> None:
    """The text goes to standard output, and who gave it to standard error."""
    answer: Json | None = None
    for event in client.ask_streaming(body):
        if event.name == "answer":
            answer = event.data
        elif "text" in event.data:
            print(event.data["text"], end="", flush=True)
    print()
    if answer is None:
        raise RequestRefused("The answer broke off; ask again.")
    note(_who(answer))


def _who(answer: Json) -> str:
    named = answer["model"] if answer["adapter"] is None else f"{answer['adapter']}@{answer['version']}"
    words = f"— {named}, {answer['usage']['completion_tokens']} tokens, {answer['latency_ms']:.0f} ms"
    if answer["fallback"]:
        return f"{words}. The base model answered: {answer.get('fallback_reason') or 'the adapter could not'}"
    return words
