"""`finetuned models`: the base models that may be used."""

from __future__ import annotations

from cli.commands.options import AsJson, open_client
from cli.output import print_json, print_table


def models(as_json: AsJson = False) -> None:
    """List the base models that this installation allows, and whether they are on disk."""
    with open_client() as client:
        found = client.models()
    if as_json:
        print_json(found)
        return
    rows = [(one["id"], "default" if one["default"] else "", "yes" if one["on_disk"] else "no") for one in found]
    print_table(("MODEL", "", "ON DISK"), rows, if_empty="No model is on disk; the allowed names load at first use.")
