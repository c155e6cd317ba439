"""Files with a purpose, uploads in parts, checkpoints that answer, webhooks, and who promoted a version."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from shared.database import now

revision = "0003"
down_revision = "0002"

_KEPT = "id, project_id, filename, kind, size_bytes, sha256, status, error_code, error_detail, created_at, deleted_at"
TABLES = ("model_checkpoints", "uploads", "upload_parts", "webhook_endpoints", "webhook_deliveries")


def upgrade() -> None:
    _rebuild_documents() if _is_sqlite() else _alter_documents()
    op.create_index(op.f("ix_documents_sha256"), "documents", ["sha256"], unique=False)
    op.add_column("promotions", sa.Column("actor", sa.String(length=255), nullable=True))
    _create_tables()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
    op.drop_column("promotions", "actor")
    op.execute("DELETE FROM documents WHERE content_key IS NULL")  # the older schema knows no other purposes
    op.drop_index(op.f("ix_documents_sha256"), "documents")
    if not _is_sqlite():
        op.drop_constraint("documents_project_id_content_key_key", "documents", type_="unique")
        for column in ("purpose", "content_key", "expires_at"):
            op.drop_column("documents", column)
        op.create_unique_constraint("documents_project_id_sha256_key", "documents", ["project_id", "sha256"])
        return
    _replace_documents((), "sha256", _KEPT, _KEPT)


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _new_columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("purpose", sa.String(length=32), server_default="documents", nullable=False),
        sa.Column("content_key", sa.String(length=64), nullable=True),
        sa.Column("expires_at", sa.Double(), nullable=True),
    )


def _alter_documents() -> None:
    for column in _new_columns():
        op.add_column("documents", column)
    op.execute("UPDATE documents SET content_key = sha256")
    op.drop_constraint("documents_project_id_sha256_key", "documents", type_="unique")
    op.create_unique_constraint("documents_project_id_content_key_key", "documents", ["project_id", "content_key"])


def _rebuild_documents() -> None:
    _replace_documents(_new_columns(), "content_key", f"{_KEPT}, content_key", f"{_KEPT}, sha256")


def _replace_documents(more: tuple[sa.Column[Any], ...], unique: str, into: str, taken: str) -> None:
    """SQLite drops no constraint of a table, so the table is built anew."""
    op.create_table(
        "documents_anew",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("filename", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        *more,
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_detail", sa.String(length=1000), nullable=True),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id", unique),
    )
    op.execute(f"INSERT INTO documents_anew ({into}) SELECT {taken} FROM documents")  # noqa: S608 - our own names
    op.drop_table("documents")
    op.rename_table("documents_anew", "documents")
    op.create_index(op.f("ix_documents_project_id"), "documents", ["project_id"], unique=False)


def _create_tables() -> None:
    op.create_table(
        "model_checkpoints",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("adapter", sa.String(length=128), nullable=False),
        sa.Column("base_model", sa.String(length=512), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("job_id", "step"),
    )
    op.create_index(op.f("ix_model_checkpoints_job_id"), "model_checkpoints", ["job_id"], unique=False)
    op.create_index(op.f("ix_model_checkpoints_project_id"), "model_checkpoints", ["project_id"], unique=False)
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("filename", sa.String(length=255), nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("mime_type", sa.String(length=255), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("file_expires_after_seconds", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("document_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["document_id"], ["documents.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_uploads_project_id"), "uploads", ["project_id"], unique=False)
    op.create_table(
        "upload_parts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("upload_id", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_upload_parts_upload_id"), "upload_parts", ["upload_id"], unique=False)
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("secret", sa.String(length=128), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_webhook_endpoints_project_id"), "webhook_endpoints", ["project_id"], unique=False)
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("endpoint_id", sa.String(length=64), nullable=False),
        sa.Column("event_id", sa.String(length=64), nullable=False),
        sa.Column("event_type", sa.String(length=64), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("num_attempts", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("last_error", sa.String(length=1000), nullable=True),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoints.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("endpoint_id", "event_id"),
    )
    op.create_index(op.f("ix_webhook_deliveries_endpoint_id"), "webhook_deliveries", ["endpoint_id"], unique=False)
    op.create_index("ix_webhook_due", "webhook_deliveries", ["status", "due_at"], unique=False)
