"""`finetuned sweep` and `sweeps`: the search for the best configuration, its trials, and what mattered."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from cli.client import Client, Json
from cli.commands.completion import adapter_names
from cli.commands.documents import upload_for_training
from cli.commands.options import AsJson, BaseModelName, FilesToLearn, NumRows, given, open_client
from cli.errors import INTERRUPTED
from cli.following import follow, succeeded, view_for
from cli.output import note, number, print_fields, print_json, print_line, print_table, when
from cli.search_space import parse_space


def sweep(
    files: FilesToLearn = None,
    setup: Annotated[str | None, typer.Option(metavar="ID", help="A setup's id: learn from its dataset.")] = None,
    adapter: Annotated[
        str | None, typer.Option(help="Name of the best trial's version.", autocompletion=adapter_names)
    ] = None,
    model: BaseModelName = None,
    epochs: Annotated[int | None, typer.Option(help="Of each trial, where it is not searched.")] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUES", help="learning_rate=1e-5..1e-3:log, num_epochs=1..6, lora_rank=4,8,16."),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many; default: 20.")] = None,
    parallel: Annotated[int | None, typer.Option(min=1, help="At once, as workers allow; default: 2.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which no trial begins.")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe (default) or random.")] = None,
    pruner: Annotated[str | None, typer.Option(help="median (default), asha or none.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the search.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and do not wait.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search for the best configuration, and follow the trials until the best one is a version."""
    wanted: Json = {
        "setup_job_id": setup,
        "adapter": adapter,
        "config": given({"model_name": model, "num_epochs": epochs}) or None,
        "space": parse_space(space) if space else None,
        "num_trials": trials,
        "num_parallel": parallel,
        "timeout_seconds": timeout,
        "sampler": sampler,
        "pruner": pruner,
        "seed": seed,
    }
    with open_client() as client:
        if files:
            wanted["document_ids"] = upload_for_training(client, files)
        created = client.create_sweep(given(wanted))
        if not detach:
            _follow(client, created)
        found = created if detach else client.sweep(created["job_id"])
    if as_json:
        print_json(found)
    elif detach:
        print_line(f"Sweep  {created['job_id']}")
    else:
        show_sweep(found)


def sweeps(
    sweep_id: Annotated[str | None, typer.Argument(metavar="ID", help="One sweep with its trials.")] = None,
    limit: NumRows = 20,
    as_json: AsJson = False,
) -> None:
    """List sweeps, or show one with its trials."""
    with open_client() as client:
        if sweep_id is not None:
            found = client.sweep(sweep_id)
            print_json(found) if as_json else show_sweep(found)
            return
        rows = client.sweeps(limit)
    if as_json:
        print_json(rows)
        return
    print_table(("ID", "STATUS", "ADAPTER", "TRIALS", "BEST", "CREATED"), map(_row, rows), if_empty="No sweep yet.")


def show_sweep(found: Json) -> None:
    """The table of trials, the best marked, what mattered, and what became of the best one."""
    names, best = list(found["parameters"]["space"]), found["best"] or {}
    print_table(("TRIAL", "STATE", "LOSS", "SETTINGS"), [_trial(one, names, best) for one in found["trials"]],
                if_empty="No trial has begun yet.")  # fmt: skip
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in found["importances"].items())
    if shares:
        print_line(f"What mattered: {shares}")
    if not best:
        return
    version = best["version"]
    if version is None and best["model"]:
        print_line("The best trial's weights can be asked as the model")
        print_line(f"  {best['model']}")
    elif version is not None:
        decision = best["decision"] or {}
        verdict = "is live" if decision.get("is_promoted") else "is published and not promoted"
        print_line(f"{found['adapter']}@{version} {verdict}.")
        print_fields({"Why": decision.get("reason")})


def _follow(client: Client, created: Json) -> None:
    """Until the sweep has ended; raises what kept it from its end."""
    sweep_id = created["job_id"]
    try:
        with view_for(Console(stderr=True, highlight=False)) as view:
            succeeded(follow(client, created["setup_job_id"], view).job)
            ended = follow(client, sweep_id, view).job
    except KeyboardInterrupt:
        note(f"The sweep goes on. Look at it: finetuned sweeps {sweep_id}; end it: finetuned cancel {sweep_id}")
        raise typer.Exit(INTERRUPTED) from None
    succeeded(ended)


def _row(one: Json) -> tuple[object, ...]:
    trials = f"{one['num_ended']}/{one['num_trials']}"
    return one["id"], one["status"], one["adapter"], trials, number(one["best_loss"]), when(one["created_at"])


def _trial(one: Json, names: list[str], best: Json) -> tuple[object, ...]:
    mark = "*" if one["number"] == best.get("number") else ""
    said = " ".join(f"{name}={_short(one['params'].get(name))}" for name in names)
    return f"{one['number']}{mark}", one["state"], number(one["value"], 4), one["error"] or said


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)
