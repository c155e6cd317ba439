"""`finetuned jobs`, `job`, `cancel`, `pause`, `resume`: rows of work."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.console import Console

from cli.client import Client, Json
from cli.commands.options import AsJson, JobId, NumRows, open_client
from cli.following import follow, succeeded, view_for, words_of
from cli.output import number, print_fields, print_json, print_line, print_table, steps_of, when
from cli.sparkline import curve

_LAST_EVENTS = 10


def jobs(
    limit: NumRows = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs."""
    with open_client() as client:
        found = client.jobs(limit)
    if as_json:
        print_json(found)
        return
    rows = [_row(job) for job in found]
    print_table(("ID", "STATUS", "ADAPTER", "STEP", "LOSS", "CREATED"), rows, if_empty="No job yet.")


def job(
    job_id: JobId,
    is_followed: Annotated[bool, typer.Option("--follow", "-f", help="Wait for its end; exit 1 if it fails.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a job and what happened to it."""
    with open_client() as client:
        if is_followed:
            _follow(client, job_id)
        found = client.job(job_id)
        if as_json:
            print_json(found)
        else:
            _show(found, client.events(job_id))
    if is_followed:
        succeeded(found)


def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """End a job that has not ended, and the jobs that wait for it."""
    _move(job_id, "cancel", as_json)


def pause(job_id: JobId, as_json: AsJson = False) -> None:
    """Let a training write a checkpoint and rest."""
    _move(job_id, "pause", as_json)


def resume(job_id: JobId, as_json: AsJson = False) -> None:
    """Let a paused training go on from its checkpoint."""
    _move(job_id, "resume", as_json)


def _move(job_id: str, action: Literal["cancel", "pause", "resume"], as_json: bool) -> None:
    with open_client() as client:
        moved = client.move(job_id, action)
    if as_json:
        print_json(moved)
    else:
        print_line(f"{moved['id']} is {moved['status']}.")


def _follow(client: Client, job_id: str) -> None:
    with view_for(Console(stderr=True, highlight=False)) as view:
        follow(client, job_id, view)


def _row(job: Json) -> tuple[object, ...]:
    loss = number(job["progress"].get("train_loss"))
    return job["id"], job["status"], job["adapter"], steps_of(job), loss, when(job["created_at"])


def _reported(events: list[Json], name: str) -> list[float]:
    """What a training said of one measure, in order."""
    return [event["data"][name] for event in events if event["data"].get(name) is not None]


def _show(job: Json, events: list[Json]) -> None:
    error = job["error"] or {}
    print_fields(
        {
            "Job": job["id"],
            "Kind": job["kind"],
            "Status": job["status"],
            "Progress": words_of(job) if job["status"] == "running" else None,
            "Loss": curve(_reported(events, "train_loss")),
            "Held out": curve(_reported(events, "valid_loss")),
            "Adapter": job["adapter"],
            "Model": job["model"],
            "Waits for": job["waits_for"] if job["status"] == "queued" else None,
            "Error": error.get("detail"),
            "Created": when(job["created_at"]),
            "Started": when(job["started_at"]) or None,
            "Finished": when(job["finished_at"]) or None,
        }
    )
    if events:
        print_line("")
        rows = [(when(event["created_at"]), event["message"]) for event in events[-_LAST_EVENTS:]]
        print_table(("WHEN", "WHAT HAPPENED"), rows, if_empty="")
