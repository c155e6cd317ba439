"""Documents, datasets and what jobs made against their files, and what lies about that nobody needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from api.maintenance.findings import Problem, Repair, error, warning
from api.maintenance.site import Site
from shared.errors import CorruptDocument, NotFound
from shared.evaluation_report import REPORT, EvaluationReport
from shared.example_files import read_examples
from shared.housekeeping.leftovers import Leftover, clear, leftovers
from shared.housekeeping.volume import Volume, set_aside
from shared.models import Document
from shared.repositories.documents import DocumentRepository
from shared.repositories.evaluations import DELETED
from shared.repositories.inspection import InspectionRepository
from shared.repositories.upkeep import Known, UpkeepRepository
from shared.repositories.uploads import UploadRepository
from shared.storage import SUMS, is_sealed, sha256_of

_GONE = "The document's file is gone or damaged; upload it again."
_OF_ROWS = ("documents", "datasets", "checkpoints", "batches", "evaluations")  # folders whose entries are rows' ids
_ASIDE = "Moves it to lost/ in the data folder, where you find it."


def check_documents(site: Site) -> Iterator[Problem]:
    """Each document has its bytes."""
    with site.database.read() as session:
        documents = InspectionRepository(session).documents()
    for document in documents:
        path = site.storage.document(document.id)
        is_missing = not path.is_file()
        if not (is_missing or _is_other(path, document.size_bytes, document.sha256, is_deep=site.is_deep)):
            continue
        with site.database.read() as session:  # deleted in the meantime?
            if InspectionRepository(session).usable_document(document.id) is None:
                continue
        code, what = ("document_missing", "is gone") if is_missing else ("document_damaged", "is damaged")
        fix = "Marks the document as failed; uploading the same file again makes it whole."
        yield error(code, document.id, f"Its file {what}.", fix, _document_repair(site, document))


def check_datasets(site: Site) -> Iterator[Problem]:
    """Each dataset has its files."""
    with site.database.read() as session:
        datasets = InspectionRepository(session).datasets()
    for dataset in datasets:
        folder = site.storage.dataset(dataset.id)
        is_whole = (folder / "dataset.json").is_file() and (folder / "train").is_dir()
        if is_whole and site.is_deep and (folder / SUMS).exists():
            is_whole = is_sealed(folder)
        if is_whole:
            continue

        def mark(dataset_id: str = dataset.id) -> str:
            with site.database.write() as session:
                InspectionRepository(session).mark_dataset(dataset_id)
            return "It is marked."

        said = f"Its files are gone or damaged; to train on it, run the setup of job {dataset.job_id} again."
        yield error("dataset_broken", dataset.id, said, "Notes it at the dataset, for good.", mark)


def check_uploads(site: Site) -> Iterator[Problem]:
    """Each part of an upload that goes on has its bytes."""
    with site.database.read() as session:
        parts = InspectionRepository(session).parts()
    for part in parts:
        path = site.storage.upload_part(part.id)
        if path.is_file() and path.stat().st_size == part.size_bytes:
            continue
        with site.database.read() as session:
            if not InspectionRepository(session).is_awaited_part(part.id):
                continue

        def forget(part_id: str = part.id) -> str:
            with site.database.write() as session:
                UploadRepository(session).delete_parts([part_id])
            return "The part is forgotten."

        said = f"The bytes of this part of {part.upload_id} are gone or damaged."
        yield error("upload_part_broken", part.id, said, "Forgets the part; its client has to send it again.", forget)


def check_exports(site: Site) -> Iterator[Problem]:
    """The file of an export is what its job made. One without a file was deleted, or went to the hub."""
    with site.database.read() as session:
        jobs = InspectionRepository(session).jobs("export", "succeeded")
    for job in jobs:
        path, made = site.storage.export(job.id), job.result or {}
        if "sha256" not in made or not path.is_file():
            continue
        if _is_other(path, made["size_bytes"], made["sha256"], is_deep=site.is_deep):
            yield error("export_damaged", job.id, "Its file is damaged; export it again.", _ASIDE, _aside(site, path))


def check_outputs(site: Site) -> Iterator[Problem]:
    """Each batch of the native dialect that has succeeded has its answers."""
    with site.database.read() as session:
        jobs = InspectionRepository(session).jobs("batch", "succeeded")
    for job in jobs:
        if "openai" not in job.parameters and not site.storage.batch_output(job.id).is_file():
            yield error("batch_output_missing", job.id, "The answers are gone; create the batch again.")


def check_evaluations(site: Site) -> Iterator[Problem]:
    """Each evaluation that has succeeded, and was not deleted, has its report and its examples."""
    with site.database.read() as session:
        jobs = InspectionRepository(session).jobs("evaluation", "succeeded")
    for job in jobs:
        damage = None if DELETED in (job.result or {}) else _evaluation_damage(site, job.id)
        if damage is None:
            continue
        with site.database.read() as session:  # deleted in the meantime?
            if not InspectionRepository(session).is_shown_evaluation(job.id):
                continue
        said = f"{damage} Its figures are in the job; evaluate again for the answers, or delete the evaluation."
        yield error("evaluation_broken", job.id, said)


def check_paused_trainings(site: Site) -> Iterator[Problem]:
    """A training that rests has something to go on from."""
    with site.database.read() as session:
        jobs = InspectionRepository(session).jobs("training", "paused")
    for job in jobs:
        step = int(job.progress.get("step") or 0)
        if step and not any(site.storage.checkpoints(job.id).glob("checkpoint-*")):
            said = f"It rests at step {step} and its checkpoints are gone: resumed, it begins anew."
            yield warning("checkpoints_missing", job.id, said)


def check_unknown_files(site: Site) -> Iterator[Problem]:
    """Each file has its row. What a person sent or a training made is set aside, and never removed."""
    volume = Volume(site.storage)
    folders = {name: list(volume.entries(name)) for name in _OF_ROWS}
    with site.database.read() as session:
        known = UpkeepRepository(session).known()
    for folder, entries in folders.items():
        names = _names(known, folder)
        for entry in entries:
            is_output = folder != "batches" or entry.name.endswith(".jsonl")
            name = entry.name.removesuffix(".jsonl") if folder == "batches" else entry.name
            if name not in names and is_output and entry.age_seconds >= site.patience.unknown_seconds:
                said = f"No row names {folder}/{entry.name} (a crash while it was entered, or an older database?)."
                yield warning("file_unknown", entry.name, said, _ASIDE, _aside(site, entry.path))


def check_leftovers(site: Site) -> Iterator[Problem]:
    """Nothing lies about that the sweep would remove."""
    for one in leftovers(site.database, site.storage, site.patience):
        subject = f"{one.rule.folder}/{one.entry.name}"
        said = f"{one.entry.size_bytes:,} bytes that nobody needs; they belonged to {one.rule.owner}."
        yield warning("leftover", subject, said, "Removes it.", _clearing(site, one))


def _document_repair(site: Site, document: Document) -> Repair:
    def mark() -> str:
        path = site.storage.document(document.id)
        with site.database.write() as session:
            if InspectionRepository(session).usable_document(document.id) is None:
                return "It was deleted in the meantime."
            if path.is_file():
                set_aside(site.storage, path)
            DocumentRepository(session).mark_failed(document.id, CorruptDocument(_GONE))
        return "It is marked as failed; what there was of its file is in lost/documents."

    return mark


def _clearing(site: Site, leftover: Leftover) -> Repair:
    def remove() -> str:
        return "Removed." if clear(site.database, site.storage, leftover) else "Somebody needs it after all."

    return remove


def _aside(site: Site, path: Path) -> Repair:
    def move() -> str:
        return f"It is in {set_aside(site.storage, path).relative_to(site.storage.root)}."

    return move


def _names(known: Known, folder: str) -> Collection[str]:
    return {"documents": known.documents, "datasets": known.datasets}.get(folder, known.jobs)


def _evaluation_damage(site: Site, job_id: str) -> str | None:
    """What is wrong with an evaluation's folder; every line is read if the look is deep."""
    folder = site.storage.evaluation(job_id)
    try:
        EvaluationReport.model_validate_json((folder / REPORT).read_bytes())
        for _ in islice(read_examples(folder), None if site.is_deep else 1):
            pass
    except OSError:
        return "Its report is gone."
    except ValidationError:
        return "Its report is damaged."
    except NotFound:
        return "Its examples are gone or damaged."
    return None


def _is_other(path: Path, size_bytes: int, sha256: str, *, is_deep: bool) -> bool:
    return path.stat().st_size != size_bytes or (is_deep and sha256_of(path) != sha256)
