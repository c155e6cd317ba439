"""What the shell completes: names and ids that the service knows; nothing if it does not answer quickly."""

from __future__ import annotations

from cli.client import Client, Json
from cli.settings import client_settings
from shared.errors import FinetunedError

_PATIENCE_SECONDS = 1.0  # somebody waits at the keyboard
_MOST = 50


def adapter_names(incomplete: str) -> list[str]:
    """Names of adapters that begin so."""
    return [row["name"] for row in _newest("/fine-tuning/adapters") if row["name"].startswith(incomplete)]


def job_ids(incomplete: str) -> list[tuple[str, str]]:
    """Ids of the newest jobs that begin so, with what they are."""
    jobs = (row for row in _newest("/fine-tuning/jobs") if row["id"].startswith(incomplete))
    return [(job["id"], f"{job['kind']}, {job['status']}") for job in jobs]


def _newest(path: str) -> list[Json]:
    try:
        settings = client_settings()
        with Client(settings.url, settings.secret, timeout_seconds=_PATIENCE_SECONDS) as client:
            return client.newest(path, _MOST)
    except FinetunedError:  # completing must never say anything of its own
        return []
