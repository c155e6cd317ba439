"""Options that several commands share, and the client that they talk through."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli.client import Client
from cli.commands.completion import adapter_names, job_ids
from cli.settings import client_settings

Mode = Literal["manual", "always", "if_better"]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
JobId = Annotated[
    str, typer.Argument(metavar="ID", help="The job's id, as `finetuned jobs` shows it.", autocompletion=job_ids)
]
AdapterName = Annotated[str, typer.Argument(metavar="NAME", help="The adapter's name.", autocompletion=adapter_names)]


def open_client() -> Client:
    """A client of the service that FINETUNED_URL names, with the key that FINETUNED_API_KEY holds."""
    settings = client_settings()
    return Client(settings.url, settings.secret)
