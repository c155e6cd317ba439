"""`finetuned train`: from documents to a live adapter version."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from cli.client import Client, Json
from cli.commands.completion import adapter_names
from cli.commands.documents import upload_for_training
from cli.commands.options import AsJson, BaseModelName, FilesToLearn, Mode, given, open_client
from cli.errors import INTERRUPTED
from cli.following import follow, succeeded, view_for
from cli.output import note, print_json, print_line


def train(
    files: FilesToLearn = None,
    adapter: Annotated[
        str, typer.Option(help="Name under which the version is published.", autocompletion=adapter_names)
    ] = "default",
    model: BaseModelName = None,
    epochs: Annotated[int | None, typer.Option(help="Times that every example is seen.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the schedule.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per forward pass.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Most tokens of an example.")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the LoRA matrices.")] = None,
    promotion: Annotated[
        Mode | None, typer.Option(help="Whether the version goes live; default: by the adapter's policy.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start the jobs and do not wait for them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train an adapter on documents, and follow it until it is live."""
    wanted: Json = {
        "adapter": adapter,
        "model": model,
        "num_epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "max_length": max_length,
        "lora_rank": rank,
        "promotion": promotion,
    }
    with open_client() as client:
        if files:
            wanted["document_ids"] = upload_for_training(client, files)
        created = client.setup(given(wanted))
        if detach:
            _show_started(created, as_json)
        else:
            _show_published(follow_to_version(client, created), as_json)


def follow_to_version(client: Client, created: Json) -> Json:
    """Follows the setup job and the training job that it made possible; the latter's result."""
    try:
        with view_for(Console(stderr=True, highlight=False)) as view:
            succeeded(follow(client, created["job_id"], view).job)
            return succeeded(follow(client, created["training_job_id"], view).job)
    except KeyboardInterrupt:
        job_id = created["training_job_id"]
        note(f"The training goes on. Follow it: finetuned job {job_id} --follow; end it: finetuned cancel {job_id}")
        raise typer.Exit(INTERRUPTED) from None


def _show_started(created: Json, as_json: bool) -> None:
    if as_json:
        print_json(created)
        return
    print_line(f"Setup job     {created['job_id']}")
    print_line(f"Training job  {created['training_job_id']}")


def _show_published(result: Json, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    version = f"{result['adapter']}@{result['version']}"
    is_held = result.get("promoted") is False
    print_line(f"{version} is published and not live." if is_held else f"{version} is live.")
    if is_held:
        print_line(result["decision"]["reason"])
    metrics = result.get("metrics", {})
    if metrics.get("base_loss") is not None and metrics.get("validation_loss") is not None:
        print_line(f"Held-out loss: {metrics['base_loss']:.3f} before, {metrics['validation_loss']:.3f} after.")
    if is_held:
        print_line(f"Make it live all the same: finetuned promote {result['adapter']} {result['version']}")
        return
    print_line(f'Ask it: finetuned ask "…" --adapter {result["adapter"]}')
