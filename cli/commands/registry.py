"""`finetuned import`, `export`: adapters that were made elsewhere come in, and versions go out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from cli.client import Client, Json
from cli.commands.options import AsJson, given, open_client
from cli.errors import CommandError
from cli.following import follow, succeeded, view_for
from cli.output import print_json, print_line
from shared.registry_parameters import IMPORTED_FILES

ExportFormat = Literal["peft", "merged", "gguf", "hub"]


def import_adapter(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="PEFT's folder, or a .zip or .tar.gz of it.")],
    adapter: Annotated[str, typer.Option(help="The adapter's name here.")],
    model: Annotated[str | None, typer.Option(help="The base model, if it has another name here.")] = None,
    is_promoted: Annotated[bool, typer.Option("--promote", help="Make it live even if another version is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import a LoRA adapter that was made elsewhere, as the next version of a name."""
    texts = {"promote": "true" if is_promoted else "false"} | ({"model": model} if model else {})
    with open_client() as client:
        made = _result_of(client, client.import_adapter(adapter, _files_of(source), texts))
    if as_json:
        print_json(made)
    else:
        print_line(f"{made['adapter']}@{made['version']} is imported.")


def export(
    adapter: Annotated[str, typer.Argument(metavar="NAME", help="The adapter's name.")],
    kind: Annotated[ExportFormat, typer.Option("--format", help="The adapter, merged weights, GGUF, or the hub.")],
    version: Annotated[int | None, typer.Option(min=1, help="Default: the live one.")] = None,
    quantization: Annotated[str | None, typer.Option(help="Of GGUF: f32, f16, bf16, q8_0 or auto.")] = None,
    repository: Annotated[str | None, typer.Option(help="Of the hub: owner/name.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write.")] = None,
    as_json: AsJson = False,
) -> None:
    """Export a version: as a file, or into a repository of the hub."""
    wanted = {
        "adapter": adapter,
        "format": kind,
        "version": version,
        "quantization": quantization,
        "repository": repository,
    }
    with open_client() as client:
        made = _result_of(client, client.export(given(wanted)))
        if kind != "hub":
            output = output or Path(made["filename"])
            client.download(made["content"], output)
    if as_json:
        print_json({**made, "output": None if output is None else str(output)})
    else:
        print_line(f"{made['adapter']}@{made['version']} is in {made.get('repository') or output}.")


def _files_of(source: Path) -> list[Path]:
    """An archive, or those files of a folder that belong to an adapter."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise CommandError(f"{source} is neither a folder nor an archive.")
    found = sorted(path for path in source.iterdir() if path.name in IMPORTED_FILES and path.is_file())
    if not found:
        raise CommandError(f"{source} holds no adapter; name the folder that PEFT's save_pretrained wrote.")
    return found


def _result_of(client: Client, created: Json) -> Json:
    with view_for(Console(stderr=True, highlight=False)) as view:
        return succeeded(follow(client, str(created["job_id"]), view).job)
