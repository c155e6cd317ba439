"""Adapters, versions and promotions as clients see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.documents.form import FILE_FIELD, form_body
from shared.models import Adapter, AdapterVersion, Dataset, Document, Promotion
from shared.promotion_policy import GateDecision, PromotionMode, PromotionPolicy
from shared.storable import STORABLE

# Texts that are kept; not every database takes the character 0.
Reason = Annotated[str, Field(max_length=255, pattern=STORABLE)]
Actor = Annotated[str, Field(min_length=1, max_length=255, pattern=STORABLE, description="Who does it.")]


class AdapterAnswer(BaseModel):
    """A name, and the version that answers under it."""

    object: Literal["adapter"] = "adapter"
    name: str
    live_version: int | None
    model: str | None
    num_versions: int
    policy: PromotionPolicy
    created_at: int


class SourceDocument(BaseModel):
    """A document that a version learned from."""

    id: str
    filename: str
    sha256: str
    deleted: bool


class ImportedFile(BaseModel):
    """A file as it was sent to be imported."""

    filename: str
    size_bytes: int
    sha256: str


class Imported(BaseModel):
    """Where a version comes from that was made elsewhere."""

    job_id: str
    files: list[ImportedFile]


class Lineage(BaseModel):
    """Job → dataset → documents; or the files of an `imported` version, which has no such past here."""

    job_id: str | None
    imported: Imported | None
    setup_job_id: str | None
    dataset_id: str | None
    dataset_fingerprint: str | None
    dataset_statistics: dict[str, Any] | None
    documents: list[SourceDocument]


class VersionAnswer(BaseModel):
    """Published weights, which never change."""

    object: Literal["adapter.version"] = "adapter.version"
    version: int
    live: bool
    model: str
    metrics: dict[str, Any]
    config: dict[str, Any]
    size_bytes: int
    broken_reason: str | None
    created_at: int
    lineage: Lineage


class PromotionAnswer(BaseModel):
    """One move of the alias `live`: who moved it, and why. `action`: publish, promote, rollback or delete; or hold: a
    new version was published and did not become live. `decision` is what the gate found, where it decided."""

    action: str
    from_version: int | None
    to_version: int | None
    reason: str
    actor: str | None
    decision: GateDecision | None
    created_at: int


class AdapterDetail(AdapterAnswer):
    """An adapter with its versions and the moves of its alias, both newest first."""

    versions: list[VersionAnswer]
    history: list[PromotionAnswer]


class PromoteRequest(BaseModel):
    """Which version is to be live."""

    model_config = {"extra": "forbid"}

    version: int = Field(ge=1, le=2**31 - 1)
    reason: Reason = "by request"
    actor: Actor = "api"


class RollbackRequest(BaseModel):
    """Why, and who says so."""

    model_config = {"extra": "forbid"}

    reason: Reason = "by request"
    actor: Actor = "api"


class ImportAnswer(BaseModel):
    """The job that was created; its result names the version."""

    job_id: str
    status: str


class DeletedAdapter(BaseModel):
    """The adapter is gone, with these versions."""

    object: Literal["adapter"] = "adapter"
    adapter: str
    versions: list[int]
    deleted: Literal[True] = True


class DeletedVersion(BaseModel):
    """The version is gone."""

    object: Literal["adapter.version"] = "adapter.version"
    adapter: str
    version: int
    deleted: Literal[True] = True


def adapter_answer(adapter: Adapter, versions: Sequence[AdapterVersion], default: PromotionMode) -> AdapterAnswer:
    """`default`: the mode of the settings."""
    return AdapterAnswer(
        name=adapter.name,
        live_version=adapter.live_number,
        model=next((one.base_model for one in versions if one.number == adapter.live_number), None),
        num_versions=len(versions),
        policy=PromotionPolicy.of(None, adapter.promotion_policy, default),
        created_at=int(adapter.created_at),
    )


def version_answer(version: AdapterVersion, is_live: bool, lineage: Lineage) -> VersionAnswer:
    return VersionAnswer(
        version=version.number,
        live=is_live,
        model=version.base_model,
        metrics=version.metrics,
        config=version.config,
        size_bytes=version.size_bytes,
        broken_reason=version.broken_reason,
        created_at=int(version.created_at),
        lineage=lineage,
    )


def lineage_of(version: AdapterVersion, dataset: Dataset | None, documents: Sequence[Document]) -> Lineage:
    imported = version.config.get("imported")
    return Lineage(
        job_id=version.job_id,
        imported=None if imported is None else Imported.model_validate(imported),
        setup_job_id=None if dataset is None else dataset.job_id,
        dataset_id=version.dataset_id,
        dataset_fingerprint=None if dataset is None else dataset.fingerprint,
        dataset_statistics=None if dataset is None else dataset.statistics,
        documents=[
            SourceDocument(id=one.id, filename=one.filename, sha256=one.sha256, deleted=one.deleted_at is not None)
            for one in documents
        ],
    )


def promotion_answer(move: Promotion) -> PromotionAnswer:
    return PromotionAnswer(
        action=move.action,
        from_version=move.from_number,
        to_version=move.to_number,
        reason=move.reason,
        actor=move.actor,
        decision=None if move.decision is None else GateDecision.model_validate(move.decision),
        created_at=int(move.created_at),
    )


IMPORT_BODY = form_body(
    ["files"],
    {
        "files": {
            "type": "array",
            "items": FILE_FIELD,
            "minItems": 1,
            "description": "One .zip, .tar.gz or .tgz of the folder, or its files one by one.",
        },
        "model": {
            "type": "string",
            "description": "The base model, where it has another name here than in the adapter.",
        },
        "promote": {"type": "boolean", "description": "Makes the version live even if another one is."},
    },
)
