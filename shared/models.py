"""The tables. Times are Unix seconds by the database's clock; every row belongs to a project."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.database import now
from shared.storable import storable_text

DEFAULT_PROJECT = "default"

_EventId = BigInteger().with_variant(Integer, "sqlite")


class Words(TypeDecorator[str]):
    """What a person is to read, whatever it holds: storable, and cut to `most` characters, or to the
    column's length."""

    impl = String
    cache_ok = True

    def __init__(self, length: int, most: int | None = None) -> None:
        super().__init__(length)
        self.most = length if most is None else most

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable_text(value)[: self.most]


class Base(DeclarativeBase):
    """Maps Python's types to the two databases' types."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a class attribute
        float: Double(),
        int: BigInteger(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
    }


class Document(Base):
    """A file, as `/documents` and as `/v1/files` show it: uploaded, or made by a job.

    `purpose` is OpenAI's word for what it is for; raw documents have `documents`, files of questions `questions`, and
    of either the same bytes in one project are one: they have one `content_key`, which is None for all others.
    """

    __tablename__ = "documents"
    __table_args__ = (UniqueConstraint("project_id", "content_key"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(64), index=True)
    filename: Mapped[str] = mapped_column(String(255))
    kind: Mapped[str] = mapped_column(String(16))
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    purpose: Mapped[str] = mapped_column(String(32), server_default="documents", default="documents")
    content_key: Mapped[str | None] = mapped_column(String(64))
    expires_at: Mapped[float | None]
    status: Mapped[str] = mapped_column(String(16), default="uploaded")
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(Words(1000))
    api_key_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(server_default=now())
    deleted_at: Mapped[float | None]


class Job(Base):
    """One row of work. Only `repositories/jobs.py` changes its status. `api_key_id`: the key that created it, if one
    did."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_ready", "status", "kind", "priority", "created_at"),
        Index("ix_jobs_of_key", "project_id", "api_key_id", "status"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16), default="queued")
    priority: Mapped[int] = mapped_column(default=0)
    parameters: Mapped[dict[str, Any]]
    waits_for: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    attempt: Mapped[int] = mapped_column(default=0)
    num_crashes: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str | None] = mapped_column(String(255))
    lease_expires_at: Mapped[float | None]
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    progress_at: Mapped[float | None]
    result: Mapped[dict[str, Any] | None]
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(Words(2000, most=1950))  # an event says it after a few words
    api_key_id: Mapped[str | None] = mapped_column(String(64))
    origin: Mapped[dict[str, Any] | None]
    created_at: Mapped[float] = mapped_column(server_default=now())
    queued_at: Mapped[float] = mapped_column(server_default=now())
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class JobEvent(Base):
    """What happened to a job, in order. Append-only: triggers refuse change and removal."""

    __tablename__ = "job_events"

    id: Mapped[int] = mapped_column(_EventId, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    attempt: Mapped[int]
    type: Mapped[str] = mapped_column(String(16))
    level: Mapped[str] = mapped_column(String(8), default="info")
    message: Mapped[str] = mapped_column(Words(2000))
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[float] = mapped_column(server_default=now())


class Dataset(Base):
    """The examples that a setup job made, and what they were made of."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(64), index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    base_model: Mapped[str] = mapped_column(String(512))
    statistics: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(server_default=now())


class DatasetDocument(Base):
    """Which documents a dataset was made of."""

    __tablename__ = "dataset_documents"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    document_id: Mapped[str] = mapped_column(ForeignKey("documents.id"), primary_key=True, index=True)


class Adapter(Base):
    """A name; `live_number` is the version that answers. `promotion_policy` says which new versions become it (see
    `shared.promotion_policy`); None: as the installation's settings say."""

    __tablename__ = "adapters"
    __table_args__ = (UniqueConstraint("project_id", "name"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str] = mapped_column(String(128))
    live_number: Mapped[int | None]
    promotion_policy: Mapped[dict[str, Any] | None]
    created_at: Mapped[float] = mapped_column(server_default=now())


class AdapterVersion(Base):
    """Published weights. The row exists only if the folder does."""

    __tablename__ = "adapter_versions"
    __table_args__ = (UniqueConstraint("adapter_id", "number"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    adapter_id: Mapped[str] = mapped_column(ForeignKey("adapters.id"), index=True)
    number: Mapped[int]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), unique=True)
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"), index=True)
    base_model: Mapped[str] = mapped_column(String(512))
    metrics: Mapped[dict[str, Any]]
    config: Mapped[dict[str, Any]]
    size_bytes: Mapped[int]
    created_at: Mapped[float] = mapped_column(server_default=now())
    broken_reason: Mapped[str | None] = mapped_column(Words(1000))
    deleted_at: Mapped[float | None]


class ModelCheckpoint(Base):
    """Weights of a training that were published before its end, as a model of their own; the folder is laid out as a
    version's, `storage.version(id)`. `metrics` are those of the evaluation at this step."""

    __tablename__ = "model_checkpoints"
    __table_args__ = (UniqueConstraint("job_id", "step"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(64), index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    step: Mapped[int]
    adapter: Mapped[str] = mapped_column(String(128))
    base_model: Mapped[str] = mapped_column(String(512))
    metrics: Mapped[dict[str, Any]]
    size_bytes: Mapped[int]
    created_at: Mapped[float] = mapped_column(server_default=now())
    deleted_at: Mapped[float | None]


class Promotion(Base):
    """One move of an adapter's `live` alias: who moved it, and why; or (`hold`) that a new version did not move it.

    `decision` is what the gate measured, where it decided: a `GateDecision`.
    """

    __tablename__ = "promotions"

    id: Mapped[int] = mapped_column(_EventId, primary_key=True, autoincrement=True)
    adapter_id: Mapped[str] = mapped_column(ForeignKey("adapters.id"), index=True)
    from_number: Mapped[int | None]
    to_number: Mapped[int | None]
    action: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Words(255))
    actor: Mapped[str | None] = mapped_column(String(255))
    decision: Mapped[dict[str, Any] | None]
    created_at: Mapped[float] = mapped_column(server_default=now())


class SweepEntry(Base):
    """One line of the log from which a sweep's study is rebuilt, in the order of the ids."""

    __tablename__ = "sweep_entries"

    id: Mapped[int] = mapped_column(_EventId, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    entry: Mapped[dict[str, Any]]


class Upload(Base):
    """A large file on its way, in parts. `status`: pending, completed, cancelled or expired."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(64), index=True)
    filename: Mapped[str] = mapped_column(String(255))
    purpose: Mapped[str] = mapped_column(String(32))
    mime_type: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int]
    file_expires_after_seconds: Mapped[int | None]
    status: Mapped[str] = mapped_column(String(16), default="pending")
    document_id: Mapped[str | None] = mapped_column(ForeignKey("documents.id"))
    created_at: Mapped[float] = mapped_column(server_default=now())
    expires_at: Mapped[float]


class UploadPart(Base):
    """One part of an upload; its bytes lie beside it until the upload is completed."""

    __tablename__ = "upload_parts"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), index=True)
    size_bytes: Mapped[int]
    created_at: Mapped[float] = mapped_column(server_default=now())


class WebhookEndpoint(Base):
    """Where events of a project are sent. `secret` signs them; `events` are the types that are wanted."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(64), index=True)
    url: Mapped[str] = mapped_column(String(2000))
    secret: Mapped[str] = mapped_column(String(128))
    events: Mapped[list[Any]]
    created_at: Mapped[float] = mapped_column(server_default=now())
    deleted_at: Mapped[float | None]


class WebhookDelivery(Base):
    """One event for one endpoint. `status`: pending, delivered or failed; `due_at` is when it is tried next."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (UniqueConstraint("endpoint_id", "event_id"), Index("ix_webhook_due", "status", "due_at"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"), index=True)
    event_id: Mapped[str] = mapped_column(String(64))
    event_type: Mapped[str] = mapped_column(String(64))
    payload: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(String(16), default="pending")
    num_attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[float]
    last_error: Mapped[str | None] = mapped_column(Words(1000))
    created_at: Mapped[float] = mapped_column(server_default=now())


class AnswerRecord(Base):
    """What was measured of one answer, and what its reader thought of it; the texts only where the settings allow.

    `thumb` is `up`, `down` or None; `correction` is the answer that the reader would have given. Rows are removed when
    they are older than the settings say.
    """

    __tablename__ = "answers"
    __table_args__ = (
        Index("ix_answers_page", "project_id", "created_at", "id"),
        Index("ix_answers_of_version", "project_id", "adapter", "version", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(512))
    adapter: Mapped[str | None] = mapped_column(String(128))
    version: Mapped[int | None]
    fallback: Mapped[bool]
    fallback_reason: Mapped[str | None] = mapped_column(Words(1000))
    finish_reason: Mapped[str] = mapped_column(String(16))
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    mean_logprob: Mapped[float]
    repetition: Mapped[float]
    queue_ms: Mapped[float]
    first_token_ms: Mapped[float]
    token_ms: Mapped[float | None]
    query: Mapped[str | None] = mapped_column(Text())
    answer: Mapped[str | None] = mapped_column(Text())
    thumb: Mapped[str | None] = mapped_column(String(4))
    comment: Mapped[str | None] = mapped_column(String(2000))
    correction: Mapped[str | None] = mapped_column(Text())
    created_at: Mapped[float] = mapped_column(server_default=now(), index=True)


class Worker(Base):
    """A process that is there to work, as long as its heartbeat is fresh."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    heartbeat_at: Mapped[float] = mapped_column(server_default=now())
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)


class ApiKey(Base):
    """What opens one project over HTTP: its hash, and never the secret itself. `prefix` is what lists show of that.

    Of the limits None means the installation's, and 0 none. Revoked keys stay, for what names them.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str] = mapped_column(String(128))
    prefix: Mapped[str] = mapped_column(String(16))
    secret_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[Any]]
    requests_per_minute: Mapped[int | None]
    upload_bytes_per_day: Mapped[int | None]
    max_queued_jobs: Mapped[int | None]
    created_at: Mapped[float] = mapped_column(server_default=now())
    last_used_at: Mapped[float | None]
    revoked_at: Mapped[float | None] = mapped_column(index=True)


class ReceivedBytes(Base):
    """What was uploaded in one hour (counted from 1970) by a key, or (``) without one: whatever became of it."""

    __tablename__ = "received_bytes"

    project_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    api_key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    hour: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    num_bytes: Mapped[int]


class IdempotencyKey(Base):
    """The first answer to a POST that carried this key."""

    __tablename__ = "idempotency_keys"

    project_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    answer: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(server_default=now())
