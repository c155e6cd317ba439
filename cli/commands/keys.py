"""`finetuned keys`: who may use the service, and for what."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.client import Json
from cli.commands.options import AsJson, given, open_client
from cli.output import note, print_json, print_line, print_table, when

app = typer.Typer(help="API keys: create, list, revoke. Without any, the service is open on its own machine alone.")

Limit = Annotated[int | None, typer.Option(min=0, help="0: none; left out: the installation's.")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What people call it.")],
    scopes: Annotated[list[str], typer.Option("--scope", help="read, query, train, admin, operator; may be repeated.")],
    requests_per_minute: Limit = None,
    upload_bytes_per_day: Limit = None,
    max_queued_jobs: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and show its secret, this once. From the first one on, every request needs a key."""
    limits = {
        "requests_per_minute": requests_per_minute,
        "upload_bytes_per_day": upload_bytes_per_day,
        "max_queued_jobs": max_queued_jobs,
    }
    with open_client() as client:
        made = client.create_key({"name": name, "scopes": scopes, **given(limits)})
    if as_json:
        print_json(made)
        return
    print_line(made["secret"])
    note(f"{made['id']} is made. Its secret is shown only now; set FINETUNED_API_KEY to it.")


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """Show the project's keys, without their secrets."""
    with open_client() as client:
        found = client.keys()
    if as_json:
        print_json(found)
    else:
        columns = ("ID", "NAME", "BEGINS", "SCOPES", "USED", "")
        print_table(columns, [_row(one) for one in found], if_empty="No key.")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")], as_json: AsJson = False
) -> None:
    """End a key for good."""
    with open_client() as client:
        revoked = client.revoke_key(key_id)
    if as_json:
        print_json(revoked)
    else:
        print_line(f"{key_id} is revoked.")


def _row(one: Json) -> tuple[object, ...]:
    state = "" if one["revoked_at"] is None else "revoked"
    return one["id"], one["name"], one["prefix"], " ".join(one["scopes"]), when(one["last_used_at"]) or "never", state
