"""Options that several commands share, and the client that they talk through."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.client import Client, Json
from cli.commands.completion import adapter_names, job_ids
from cli.settings import client_settings

Mode = Literal["manual", "always", "if_better"]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
JobId = Annotated[
    str, typer.Argument(metavar="ID", help="The job's id, as `finetuned jobs` shows it.", autocompletion=job_ids)
]
AdapterName = Annotated[str, typer.Argument(metavar="NAME", help="The adapter's name.", autocompletion=adapter_names)]
FilesToLearn = Annotated[
    list[Path] | None, typer.Argument(metavar="FILE…", help="What to learn; default: all uploaded documents.")
]
BaseModelName = Annotated[str | None, typer.Option(help="Base model; default: the installation's.")]
NumRows = Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")]


def given(values: Mapping[str, Any]) -> Json:
    """Those that are not None: what is left out has the service's own default."""
    return {name: value for name, value in values.items() if value is not None}


def open_client() -> Client:
    """A client of the service that FINETUNED_URL names, with the key that FINETUNED_API_KEY holds."""
    settings = client_settings()
    return Client(settings.url, settings.secret)
