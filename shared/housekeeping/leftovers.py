"""Leftovers: what nothing can own any more, folder by folder, in one table; and removing it.

Removed is only what was never finished, what can be made again, and what somebody has deleted. What a person sent or a
training made is never removed because its row is missing: the database may be the one that is too old, restored from a
backup. `finetuned doctor` lists that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.database import Database
from shared.housekeeping.volume import Entry, Volume, remove
from shared.repositories.documents import DocumentRepository
from shared.repositories.upkeep import Known, UpkeepRepository
from shared.settings import Settings
from shared.storage import Storage

log = logging.getLogger(__name__)

_GRACE_SECONDS = 600.0  # for whoever has ended something to tidy up behind himself
_SECONDS_PER_HOUR, _SECONDS_PER_DAY = 3600.0, 86_400.0


@dataclass(frozen=True)
class Patience:
    """How long things are left alone: those that nothing knows, what has ended, and checkpoints of failed trainings."""

    unknown_seconds: float
    ended_seconds: float
    checkpoint_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> Patience:
        unknown = settings.leftover_hours * _SECONDS_PER_HOUR
        checkpoint = settings.checkpoint_retention_days * _SECONDS_PER_DAY
        return cls(unknown, min(_GRACE_SECONDS, unknown), checkpoint)


@dataclass(frozen=True)
class Rule:
    """What may lie in a folder, and when nobody needs it. `remove` gives False if somebody does after all."""

    code: str
    folder: str
    owner: str
    is_garbage: Callable[[Entry, Known, Patience], bool]
    remove: Callable[[Database, Storage, Entry], bool]


@dataclass(frozen=True)
class Leftover:
    """Something that nobody needs."""

    rule: Rule
    entry: Entry


def leftovers(database: Database, storage: Storage, patience: Patience) -> list[Leftover]:
    """What `RULES` call garbage. The folders are read before the rows: what gets its row meanwhile is known."""
    volume = Volume(storage)
    found = [Leftover(rule, entry) for rule in RULES for entry in volume.entries(rule.folder)]
    with database.read() as session:
        known = UpkeepRepository(session).known()
    return [one for one in found if one.rule.is_garbage(one.entry, known, patience)]


def sweep(database: Database, storage: Storage, patience: Patience) -> list[Leftover]:
    """Removes leftovers, and says so; what was removed. Several may sweep at once, beside everything else."""
    removed = [one for one in leftovers(database, storage, patience) if clear(database, storage, one)]
    for one in removed:
        log.info("removed %s/%s (%s), %d bytes", one.rule.folder, one.entry.name, one.rule.code, one.entry.size_bytes)
    storage.forget_gone_writers()
    return removed


def clear(database: Database, storage: Storage, leftover: Leftover) -> bool:
    """Removes one; False if it is needed after all, or cannot be removed."""
    try:
        return leftover.rule.remove(database, storage, leftover.entry)
    except OSError as error:
        log.warning("%s/%s cannot be removed: %s", leftover.rule.folder, leftover.entry.name, error.strerror)
        return False


def _is_abandoned(entry: Entry, known: Known, patience: Patience) -> bool:
    """Its writer has ended. Where that cannot be known: no request lasts so long; and no job that is worked on was
    there when it was written."""
    return entry.is_orphaned or entry.age_seconds >= max(patience.unknown_seconds, known.oldest_attempt_seconds)


def _is_unknown_part(entry: Entry, known: Known, patience: Patience) -> bool:
    return entry.name not in known.parts and entry.age_seconds >= patience.unknown_seconds


def _is_of_ended_job(entry: Entry, known: Known, patience: Patience) -> bool:
    """Up to a dot, the name is the job's id."""
    job = known.jobs.get(entry.name.partition(".")[0])
    if job is None:
        return entry.age_seconds >= patience.unknown_seconds
    return job.ended_seconds is not None and job.ended_seconds >= patience.ended_seconds


def _is_unfinished_export(entry: Entry, known: Known, patience: Patience) -> bool:
    """Where an attempt works; or the file of an export that did not succeed, or of none."""
    job = known.jobs.get(entry.name)
    is_kept = job is not None and job.status == "succeeded"
    return not is_kept and _is_of_ended_job(entry, known, patience)


def _is_unfinished_output(entry: Entry, known: Known, patience: Patience) -> bool:
    """`<job>.jsonl.<…>`, on its way to become the output."""
    is_whole = entry.name.endswith(".jsonl")
    return not is_whole and entry.age_seconds >= patience.ended_seconds and _is_of_ended_job(entry, known, patience)


def _is_old_checkpoint(entry: Entry, known: Known, patience: Patience) -> bool:
    job = known.jobs.get(entry.name)
    if job is None or job.ended_seconds is None:
        return False
    kept_seconds = patience.ended_seconds if job.status == "succeeded" else patience.checkpoint_seconds
    return job.ended_seconds >= kept_seconds


def _is_unneeded_evaluation(entry: Entry, known: Known, patience: Patience) -> bool:
    """Of an evaluation or a training that did not succeed, or of what was deleted since. Another job's are unknown."""
    job = known.jobs.get(entry.name)
    if job is None or job.ended_seconds is None or job.ended_seconds < patience.ended_seconds:
        return False
    return job.status != "succeeded" or entry.name in known.unneeded_evaluations


def _is_deleted_version(entry: Entry, known: Known, patience: Patience) -> bool:
    deleted_seconds = known.versions.get(entry.name)
    return deleted_seconds is not None and deleted_seconds >= patience.ended_seconds


def _is_deleted_document(entry: Entry, known: Known, patience: Patience) -> bool:
    deleted_seconds = known.documents.get(entry.name)
    return deleted_seconds is not None and deleted_seconds >= patience.ended_seconds


def _is_text_of_nothing(entry: Entry, known: Known, patience: Patience) -> bool:
    return entry.path.stem not in known.text_sums and entry.age_seconds >= patience.unknown_seconds


def _remove(database: Database, storage: Storage, entry: Entry) -> bool:
    remove(storage, entry.path)
    return True


def _remove_document(database: Database, storage: Storage, entry: Entry) -> bool:
    """Unless somebody has uploaded the same bytes again in the meantime; who does so now waits."""
    with database.write() as session:
        document = DocumentRepository(session).find_locked(entry.name)
        if document is None or document.deleted_at is None:
            return False
        remove(storage, entry.path)
    return True


# code, folder, who may own what lies there, when nobody does
RULES: Sequence[Rule] = (
    Rule("staged", "staging", "a request, or a job that is worked on", _is_abandoned, _remove),
    Rule("upload_part", "uploads", "the part's row", _is_unknown_part, _remove),
    Rule("import_files", "imports", "the import job, until it ends", _is_of_ended_job, _remove),
    Rule("export_files", "exports", "the export job; its file, once it has succeeded", _is_unfinished_export, _remove),
    Rule("batch_output", "batches", "the batch job, until it ends", _is_unfinished_output, _remove),
    Rule("evaluation", "evaluations", "the evaluation, or the training's version", _is_unneeded_evaluation, _remove),
    Rule("checkpoints", "checkpoints", "the training job, and who looks why it failed", _is_old_checkpoint, _remove),
    Rule("deleted_version", "adapters", "the version's or checkpoint's row", _is_deleted_version, _remove),
    Rule("deleted_document", "documents", "the document's row", _is_deleted_document, _remove_document),
    Rule("text", "texts", "any document with these bytes", _is_text_of_nothing, _remove),
)
