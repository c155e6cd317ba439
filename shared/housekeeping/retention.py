"""Retention: rows and versions that are old enough to go, as the settings say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

from shared.database import Database
from shared.errors import NotFound, VersionInUse
from shared.models import Adapter
from shared.repositories.adapters import AdapterRepository
from shared.repositories.documents import DocumentRepository
from shared.repositories.upkeep import UpkeepRepository
from shared.repositories.uploads import UploadRepository
from shared.repositories.webhooks import DELIVERY_DAYS
from shared.settings import Settings
from shared.storage import Storage

log = logging.getLogger(__name__)

IDEMPOTENCY_DAYS = 2.0  # clients may count on one


def retain(database: Database, storage: Storage, settings: Settings) -> dict[str, int]:
    """Lets go of what is old, and says so: numbers by what it was. The files go with the next sweep."""
    numbers = {what: step(database, storage, settings) for what, step in _STEPS.items()}
    for what, number in numbers.items():
        if number:
            log.info("retention: %d %s", number, what)
    return numbers


def _expire_documents(database: Database, storage: Storage, settings: Settings) -> int:
    with database.read() as session:
        projects = UpkeepRepository(session).projects_with_expired_documents()
    number = 0
    for project in projects:
        with database.write() as session:
            number += len(DocumentRepository(session).delete_expired(project))
    return number


def _remove_ended_parts(database: Database, storage: Storage, settings: Settings) -> int:
    with database.read() as session:
        part_ids = UploadRepository(session).ended_parts()
    for part_id in part_ids:
        storage.upload_part(part_id).unlink(missing_ok=True)
    if part_ids:
        with database.write() as session:
            UploadRepository(session).end_expired()
            UploadRepository(session).delete_parts(part_ids)
    return len(part_ids)


def _retire_versions(database: Database, storage: Storage, settings: Settings) -> int:
    """All but the newest `keep_versions` beside the live one, what a rollback would go to, and what is in use."""
    if not settings.keep_versions:
        return 0
    with database.read() as session:
        adapters = AdapterRepository(session)
        old = {
            (adapter.project_id, adapter.name): _old_versions(adapters, adapter, settings.keep_versions)
            for adapter in UpkeepRepository(session).served_adapters()
        }
    return sum(_delete_version(database, *name, number) for name, numbers in old.items() for number in numbers)


def _old_versions(adapters: AdapterRepository, adapter: Adapter, keep: int) -> list[int]:
    others = [one.number for one in adapters.versions(adapter) if one.number != adapter.live_number]
    return sorted(set(others[keep:]) - _spared(adapters, adapter))


def _spared(adapters: AdapterRepository, adapter: Adapter) -> set[int | None]:
    """The live version, the one to go back to, and the one that answers while the live one is broken."""
    earlier = adapters.earlier(adapter)
    whole = [one for one in earlier if one.broken_reason is None]
    return {adapter.live_number, *(one.number for one in (*earlier[:1], *whole[:1]))}


def _delete_version(database: Database, project: str, name: str, number: int) -> int:
    """Asks again under the adapter's lock: it may have become live, the one to go back to, or used."""
    with suppress(VersionInUse, NotFound), database.write() as session:
        adapters = AdapterRepository(session)
        adapters.held(project, name, number)
        if number in _spared(adapters, adapters.get(project, name)):
            return 0
        adapters.delete_version(project, name, number)
        return 1
    return 0


def _retire_checkpoint_models(database: Database, storage: Storage, settings: Settings) -> int:
    """Those of trainings whose version was deleted."""
    with database.write() as session:
        return UpkeepRepository(session).retire_orphaned_checkpoints()


def _retire_beaten_trials(database: Database, storage: Storage, settings: Settings) -> int:
    """Those that a cancelled sweep had not compared yet."""
    with database.write() as session:
        return UpkeepRepository(session).retire_beaten_trials()


def _prune_idempotency_keys(database: Database, storage: Storage, settings: Settings) -> int:
    with database.write() as session:
        return UpkeepRepository(session).prune_idempotency_keys(IDEMPOTENCY_DAYS)


def _prune_deliveries(database: Database, storage: Storage, settings: Settings) -> int:
    with database.write() as session:
        return UpkeepRepository(session).prune_deliveries(DELIVERY_DAYS)


_STEPS: dict[str, Callable[[Database, Storage, Settings], int]] = {
    "expired documents": _expire_documents,
    "parts of ended uploads": _remove_ended_parts,
    "versions beyond keep_versions": _retire_versions,
    "checkpoints of deleted versions": _retire_checkpoint_models,
    "weights of trials that were not the best": _retire_beaten_trials,
    "idempotency keys": _prune_idempotency_keys,
    "webhook deliveries": _prune_deliveries,
}
