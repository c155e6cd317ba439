"""Published versions and checkpoint models against their folders, and the aliases against the versions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from api.maintenance.findings import Problem, error, warning
from api.maintenance.site import Site
from shared.housekeeping.volume import Volume
from shared.models import Adapter, AdapterVersion
from shared.repositories.adapters import AdapterRepository
from shared.repositories.inspection import InspectionRepository
from shared.repositories.upkeep import UpkeepRepository
from shared.storage import sha256_of

_MANIFEST = "manifest.json"
_ACTOR = "doctor"


class _File(BaseModel):
    sha256: str
    size_bytes: int


class _Manifest(BaseModel):
    """As much of `manifest.json` as tells whether the folder is whole, and whose it is."""

    files: dict[str, _File] = Field(min_length=1)
    job_id: str | None = None
    manifest_sha256: str | None = None  # its own, for which the sum's digits count as zeros

    def is_whole(self, text: bytes) -> bool:
        if self.manifest_sha256 is None:
            return True
        head, _, tail = text.rpartition(self.manifest_sha256.encode())
        return hashlib.sha256(head + b"0" * 64 + tail).hexdigest() == self.manifest_sha256


def check_versions(site: Site) -> Iterator[Problem]:
    """Each version has its files, as they were published; one that is marked as broken is."""
    with site.database.read() as session:
        rows = InspectionRepository(session).versions()
    for adapter, version in rows:
        folder = site.storage.version(version.id)
        damage = damage_of(folder, is_deep=site.is_deep or version.broken_reason is not None)
        if damage is None:
            if version.broken_reason is not None:
                yield _whole_again(site, adapter, version)
        elif _is_shown(site, version.id):
            yield from _broken(site, adapter, version, damage)


def check_checkpoint_models(site: Site) -> Iterator[Problem]:
    """Each checkpoint model has its files."""
    with site.database.read() as session:
        checkpoints = InspectionRepository(session).checkpoints()
    for checkpoint in checkpoints:
        damage = damage_of(site.storage.version(checkpoint.id), is_deep=site.is_deep)
        if damage is None:
            continue
        with site.database.read() as session:
            if not InspectionRepository(session).is_shown_checkpoint(checkpoint.id):
                continue

        def hide(checkpoint_id: str = checkpoint.id) -> str:
            with site.database.write() as session:
                InspectionRepository(session).hide_checkpoint(checkpoint_id)
            return "It is not listed any more."

        said = f"The checkpoint of job {checkpoint.job_id} after step {checkpoint.step} cannot be asked: {damage}"
        yield error("checkpoint_broken", checkpoint.id, said, "Takes the checkpoint off the list.", hide)


def check_aliases(site: Site) -> Iterator[Problem]:
    """`live` names a version that is there."""
    with site.database.read() as session:
        dangling = AdapterRepository(session).dangling()
    for adapter in dangling:

        def mend(project: str = adapter.project_id, name: str = adapter.name) -> str:
            with site.database.write() as session:
                number = AdapterRepository(session).mend_alias(project, name, _ACTOR)
            return "No version is live any more." if number is None else f"{name}@{number} is live now."

        said = f"The live version of '{adapter.name}' is number {adapter.live_number}, which does not exist."
        fix = "Moves the alias to the whole version that was live before, if there is one; the history shows it."
        yield error("alias_broken", adapter.name, said, fix, mend)


def check_unknown_versions(site: Site) -> Iterator[Problem]:
    """Each folder has its row; one that has none may be the younger of the two, and is never touched."""
    entries = list(Volume(site.storage).entries("adapters"))
    with site.database.read() as session:
        known = UpkeepRepository(session).known()
    for entry in entries:
        if entry.name in known.versions or entry.age_seconds < site.patience.unknown_seconds:
            continue
        manifest = _manifest_of(entry.path)
        job = known.jobs.get(manifest.job_id or "") if manifest else None
        if job is not None and job.ended_seconds is None:  # its next attempt may take the folder up
            continue
        what = "Import it with `finetuned import NAME FOLDER`, or remove the folder."
        if damage_of(entry.path, is_deep=site.is_deep) is not None:
            what = "It is not whole; look whether a backup has the rest, or remove the folder."
        said = f"The folder adapters/{entry.name} holds weights that no row names (was the database restored?). {what}"
        yield warning("version_unknown", entry.name, said)


def damage_of(folder: Path, *, is_deep: bool) -> str | None:
    """What is wrong with a published folder by its manifest: names and sizes, and if `is_deep` every byte."""
    if not folder.is_dir():
        return "its folder is missing."
    manifest = _manifest_of(folder)
    if manifest is None:
        return "its manifest is missing, or cannot be read."
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {_MANIFEST}
    for name in sorted(present ^ manifest.files.keys()):
        return f"its file {name} {'was not published with it' if name in present else 'is missing'}."
    for name, wanted in manifest.files.items():
        path = folder / name
        if path.stat().st_size != wanted.size_bytes or (is_deep and sha256_of(path) != wanted.sha256):
            return f"its file {name} is damaged."
    return None


def _manifest_of(folder: Path) -> _Manifest | None:
    try:
        text = (folder / _MANIFEST).read_bytes()
        manifest = _Manifest.model_validate_json(text)
    except (OSError, ValidationError):
        return None
    return manifest if manifest.is_whole(text) else None


def _is_shown(site: Site, version_id: str) -> bool:
    with site.database.read() as session:
        return InspectionRepository(session).is_shown_version(version_id)


def _broken(site: Site, adapter: Adapter, version: AdapterVersion, damage: str) -> Iterator[Problem]:
    name = f"{adapter.name}@{version.number}"
    is_live = adapter.live_number == version.number
    if version.broken_reason is None:

        def mark() -> str:
            with site.database.write() as session:
                AdapterRepository(session).mark_broken(version.id, f"The doctor found: {damage}")
            return "It is marked as broken."

        yield error("version_broken", name, f"It cannot be served: {damage}", "Marks the version as broken.", mark)
    if is_live:
        yield error("live_version_broken", name, f"It is live and {damage} {_answering(site, adapter, version)}")


def _answering(site: Site, adapter: Adapter, version: AdapterVersion) -> str:
    """Who answers in its place, which is never moved silently, and what to do."""
    with site.database.read() as session:
        earlier = [one for one in AdapterRepository(session).earlier(adapter) if one.broken_reason is None]
    if not earlier:
        return "Restore it from a backup, or train again."
    number = earlier[0].number
    return f"Version {number} answers in its place; `finetuned promote {adapter.name} {number}` makes that the rule."


def _whole_again(site: Site, adapter: Adapter, version: AdapterVersion) -> Problem:
    def clear() -> str:
        with site.database.write() as session:
            AdapterRepository(session).mark_broken(version.id, None)
        return "The mark is gone."

    said = "It is marked as broken, and every byte of it is as it was published."
    fix = "Takes the mark away."
    return warning("version_whole", f"{adapter.name}@{version.number}", said, fix, clear)
