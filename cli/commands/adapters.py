"""`finetuned adapters`, `promote`, `rollback`: which version of an adapter answers."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.client import Json
from cli.commands.completion import adapter_names
from cli.commands.options import AdapterName, AsJson, Mode, given, open_client
from cli.output import number, print_json, print_line, print_table, when


def adapters(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this adapter's versions.", autocompletion=adapter_names)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the adapters, or the versions of one."""
    with open_client() as client:
        found = client.adapters() if name is None else client.adapter(name)
    if as_json:
        print_json(found)
    elif isinstance(found, list):
        _show_adapters(found)
    else:
        _show_versions(found)


def promote(
    name: AdapterName,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The version that is to answer.")],
    as_json: AsJson = False,
) -> None:
    """Make a version live."""
    with open_client() as client:
        _show_live(client.promote(name, version), as_json)


def rollback(name: AdapterName, as_json: AsJson = False) -> None:
    """Make the version live again that was live before."""
    with open_client() as client:
        _show_live(client.rollback(name), as_json)


def policy(
    name: AdapterName,
    mode: Annotated[
        Mode | None, typer.Option(help="manual: by hand alone; always; if_better: by the held-out loss.")
    ] = None,
    min_improvement: Annotated[float | None, typer.Option(min=0.0, help="Nats a token that it must be better.")] = None,
    min_examples: Annotated[int | None, typer.Option(min=1, help="With fewer, the losses alone decide.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show which new versions of an adapter go live, or say so."""
    wanted = given({"mode": mode, "min_improvement": min_improvement, "min_examples": min_examples})
    with open_client() as client:
        found = client.policy(name)
        if wanted:
            found = client.set_policy(name, found | wanted)
    if as_json:
        print_json(found)
    else:
        print_line(_policy_words(name, found))


def _policy_words(name: str, found: Json) -> str:
    if found["mode"] == "manual":
        return f"{name}: new versions are promoted by hand (manual)."
    if found["mode"] == "always":
        return f"{name}: every new version goes live (always)."
    rivals = " and of ".join({"base": "the base model", "live": "the live version"}[one] for one in found["against"])
    by = f" by {found['min_improvement']:g} nats a token" if found["min_improvement"] else ""
    of = f" than that of {rivals}" if rivals else ""
    return f"{name}: a new version goes live if its held-out loss is lower{by}{of} (if_better)."


def _show_live(adapter: Json, as_json: bool) -> None:
    if as_json:
        print_json(adapter)
    else:
        print_line(f"{adapter['name']}@{adapter['live_version']} is live.")


def _show_adapters(found: list[Json]) -> None:
    rows = [
        (one["name"], one["live_version"], one["num_versions"], one["model"], when(one["created_at"])) for one in found
    ]
    columns = ("ADAPTER", "LIVE", "VERSIONS", "BASE MODEL", "CREATED")
    print_table(columns, rows, if_empty="No adapter yet; `finetuned train FILE…` makes one.")


def _show_versions(adapter: Json) -> None:
    moved = {move["to_version"] for move in adapter["history"] if move["action"] != "hold"}
    made_here = {one["version"] for one in adapter["versions"] if one["lineage"]["imported"] is None}
    held = made_here - moved
    rows = [
        (
            f"{adapter['name']}@{one['version']}",
            "broken" if one["broken_reason"] else "live" if one["live"] else "held" if one["version"] in held else "",
            one["model"],
            number(one["metrics"].get("validation_loss")),
            when(one["created_at"]),
        )
        for one in adapter["versions"]
    ]
    print_table(("VERSION", "", "BASE MODEL", "HELD-OUT LOSS", "PUBLISHED"), rows, if_empty="No version.")
