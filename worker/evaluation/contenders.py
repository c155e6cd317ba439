"""Who is compared: the columns, each with its base model and its version, as they are when the job begins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from shared.errors import FinetunedError, NotFound, VersionNotFound
from shared.evaluation_parameters import Column
from shared.models import AdapterVersion
from shared.repositories.adapters import AdapterRepository
from shared.storage import disk_errors, make_folder, publish_file
from shared.training_config import Quantization
from worker.adapter_files import check_files
from worker.evaluation.work import Work

_COSTS = {"seconds": "training_seconds", "trained_tokens": "trained_tokens", "steps": "training_steps"}


@dataclass(frozen=True)
class Contender:
    """A column that takes part. `index` is its place among the columns that were asked for; `quantization` is that of
    the base model while its version was trained."""

    index: int
    column: Column
    base_model: str
    version_id: str | None = None
    prompt_format: str | None = None
    quantization: Quantization = "none"
    costs: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.column.label

    @property
    def is_rag(self) -> bool:
        return self.column.backend == "rag"


def contenders_of(work: Work) -> list[Contender]:
    """Those of the columns that can take part; of the others the report notes why they do not."""
    found: list[Contender] = []
    for index, column in enumerate(_resolved(work)):
        try:
            one = _contender(work, index, column)
        except FinetunedError as error:
            work.note(f"{column.label} is left out: {error.detail}", error)
            continue
        if any(other.label == one.label for other in found):
            work.note(f"{one.label} was asked for twice, by number and as the live version; it is there once.")
        else:
            found.append(one)
    return found


def _resolved(work: Work) -> Sequence[Column]:
    """The columns with the numbers of their versions. They are looked up once a job: a version that becomes live in
    the midst of it changes nobody's column."""
    path = work.folder / "columns.json"
    if path.exists():
        return [Column.model_validate(one) for one in json.loads(path.read_text(encoding="utf-8"))]
    with work.job.database.read() as session:
        columns = [_with_number(session, work.project, one) for one in work.parameters.columns]
    staged = path.with_suffix(".staged")
    with disk_errors():
        make_folder(path.parent)
        staged.write_text(json.dumps([one.model_dump(mode="json") for one in columns]), encoding="utf-8")
        publish_file(staged, path)
    return columns


def _with_number(session: Session, project: str, column: Column) -> Column:
    """As it is, where no version is found."""
    adapters = AdapterRepository(session)
    if column.training_job_id is not None:
        published = adapters.published_by(project, column.training_job_id)
        if published is None:
            return column
        return column.model_copy(update={"adapter": published[0].name, "version": published[1].number})
    if column.adapter is None or column.version is not None:
        return column
    try:
        return column.model_copy(update={"version": adapters.resolve(project, column.adapter, None).number})
    except NotFound:
        return column


def _contender(work: Work, index: int, column: Column) -> Contender:
    """Raises what is wrong with the version: a `NotFound`, or `AdapterBroken`."""
    if column.adapter is None and column.training_job_id is None:
        return Contender(index, column, work.parameters.base_model)
    if column.adapter is None or (column.version is None and column.training_job_id is not None):
        raise VersionNotFound(f"Training {column.training_job_id} has published no version.")
    with work.job.database.read() as session:
        version = AdapterRepository(session).resolve(work.project, column.adapter, column.version)
    manifest = check_files(work.storage.version(version.id), version.id)
    return Contender(
        index,
        column,
        version.base_model,
        version.id,
        manifest.prompt_format,
        _quantization_of(version),
        _costs_of(version),
    )


def _quantization_of(version: AdapterVersion) -> Quantization:
    """`none` of a version that was imported: nothing is known of it."""
    found = (version.config or {}).get("quantization")
    return found if found in ("4bit", "8bit") else "none"


def _costs_of(version: AdapterVersion) -> dict[str, float]:
    """What the version cost to make and costs to keep."""
    metrics: dict[str, Any] = version.metrics or {}
    known = {ours: metrics[theirs] for theirs, ours in _COSTS.items() if isinstance(metrics.get(theirs), int | float)}
    return {**{name: float(value) for name, value in known.items()}, "size_bytes": float(version.size_bytes)}
