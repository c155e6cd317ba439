"""A small installation in which everything matches: a row and its files of every kind, and a job of every sort."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from redis import Redis

from shared.evaluation_report import EXAMPLES, REPORT
from shared.models import AdapterVersion, Dataset, DatasetDocument, ModelCheckpoint, Upload, UploadPart
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import JobRepository
from shared.repositories.workers import WorkerRepository
from shared.storage import seal
from shared.streams import GROUP, QUESTIONS
from tests.evaluated import example, report
from tests.housekeeping.conftest import House, write

TEXT = "bytes"
SUM = hashlib.sha256(TEXT.encode()).hexdigest()


def furnish(house: House, redis_url: str) -> dict[str, str]:
    """Fills an empty installation; ids by what they are."""
    ids = {"document": "file-1", "dataset": "dataset-1", "checkpoint": "version-c", "part": "part_1"}
    house.document(ids["document"], SUM)
    write(house.storage.text(SUM))
    ids["setup"] = _succeeded(house, "setup", {}, {"dataset_id": "dataset-1"})
    _dataset(house, ids)
    ids["training"] = _succeeded(house, "training", {}, {})
    for number in (1, 2):
        _version(house, f"version-{number}", ids["training"] if number == 2 else None)
    _checkpoint(house, ids)
    _upload(house, ids)
    made = {"filename": "a.zip", "size_bytes": len(TEXT), "sha256": SUM}
    ids["export"] = _succeeded(house, "export", {}, made)
    write(house.storage.export(ids["export"]))
    ids["batch"] = _succeeded(house, "batch", {"document_id": ids["document"]}, {"answered": 1})
    write(house.storage.batch_output(ids["batch"]))
    ids["evaluation"] = _evaluation(house)
    write(house.storage.evaluation(ids["training"]) / "held_out.json", "{}")
    ids["paused"] = _paused(house)
    ids["running"] = house.job()
    house.claim()
    write(house.storage.checkpoints(ids["running"]) / "checkpoint-00000001-0" / "state.safetensors")
    _workers(house, redis_url)
    return ids


def write_version(folder: Path, job_id: str | None = None) -> None:
    """A folder as publication leaves it, as far as the manifest goes."""
    files = {name: write(folder / name) for name in ("adapter_config.json", "adapter_model.safetensors")}
    listed = {name: {"sha256": SUM, "size_bytes": path.stat().st_size} for name, path in files.items()}
    write(folder / "manifest.json", json.dumps({"schema": 1, "files": listed, "job_id": job_id}))


def _succeeded(house: House, kind: str, parameters: dict[str, Any], result: dict[str, Any]) -> str:
    with house.database.write() as session:
        job_id = JobRepository(session).create("default", kind, parameters).id
    claim = house.claim(kind)
    with house.database.write() as session:
        JobRepository(session).succeed(claim, result)
    return job_id


def _evaluation(house: House) -> str:
    made = report().model_dump(mode="json")
    job_id = _succeeded(house, "evaluation", {"base_model": "demo", "columns": [{}]}, made)
    folder = house.storage.evaluation(job_id)
    write(folder / REPORT, json.dumps(made))
    write(folder / EXAMPLES, "".join(f"{example(one, {'base': 1.0}).model_dump_json()}\n" for one in range(3)))
    return job_id


def _dataset(house: House, ids: dict[str, str]) -> None:
    folder = house.storage.dataset(ids["dataset"])
    write(folder / "dataset.json", "{}")
    write(folder / "train" / "data.arrow")
    seal(folder)
    described = {"fingerprint": "0" * 64, "base_model": "demo", "statistics": {}}
    with house.database.write() as session:
        session.add(Dataset(id=ids["dataset"], project_id="default", job_id=ids["setup"], **described))
        session.flush()
        session.add(DatasetDocument(dataset_id=ids["dataset"], document_id=ids["document"]))


def _version(house: House, version_id: str, job_id: str | None) -> None:
    write_version(house.storage.version(version_id), job_id)
    described: dict[str, Any] = {"base_model": "demo", "metrics": {}, "config": {}, "size_bytes": 10}
    version = AdapterVersion(id=version_id, job_id=job_id, **described)
    with house.database.write() as session:
        AdapterRepository(session).publish("default", "handbook", version)


def _checkpoint(house: House, ids: dict[str, str]) -> None:
    write_version(house.storage.version(ids["checkpoint"]), ids["training"])
    row = ModelCheckpoint(
        id=ids["checkpoint"],
        project_id="default",
        job_id=ids["training"],
        step=3,
        adapter="handbook",
        base_model="demo",
        metrics={},
        size_bytes=10,
    )
    with house.database.write() as session:
        session.add(row)


def _upload(house: House, ids: dict[str, str]) -> None:
    described: dict[str, Any] = {"filename": "a.txt", "purpose": "batch", "mime_type": "text/plain", "size_bytes": 9}
    with house.database.write() as session:
        session.add(Upload(id="upload_1", project_id="default", expires_at=2e10, **described))
        session.flush()
        session.add(UploadPart(id=ids["part"], upload_id="upload_1", size_bytes=len(TEXT)))
    write(house.storage.upload_part(ids["part"]))


def _paused(house: House) -> str:
    job_id = house.job()
    with house.database.write() as session:
        JobRepository(session).pause("default", job_id)
    house.move(job_id, progress={"step": 10, "total_steps": 20})
    write(house.storage.checkpoints(job_id) / "checkpoint-00000001-0" / "state.safetensors")
    return job_id


def _workers(house: House, redis_url: str) -> None:
    with house.database.write() as session:
        for kind in ("setup", "training", "batch", "inference", "retrieval", "sweep"):
            WorkerRepository(session).beat(f"{kind}-1", kind, {})
    with Redis.from_url(redis_url, protocol=2) as redis:
        redis.xgroup_create(QUESTIONS, GROUP, id="0", mkstream=True)
