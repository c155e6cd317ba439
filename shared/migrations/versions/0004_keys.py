"""API keys, which of them made what, and how much each has uploaded."""

import sqlalchemy as sa
from alembic import op

from shared.database import now

revision = "0004"
down_revision = "0003"

_NAMING = ("jobs", "documents")


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("requests_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("upload_bytes_per_day", sa.BigInteger(), nullable=True),
        sa.Column("max_queued_jobs", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("secret_sha256"),
    )
    op.create_index(op.f("ix_api_keys_project_id"), "api_keys", ["project_id"], unique=False)
    op.create_index(op.f("ix_api_keys_revoked_at"), "api_keys", ["revoked_at"], unique=False)
    op.create_table(
        "received_bytes",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("api_key_id", sa.String(length=64), nullable=False),
        sa.Column("hour", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "api_key_id", "hour"),
    )
    for table in _NAMING:  # no foreign key: SQLite adds none to a table that is there, and keys are never removed
        op.add_column(table, sa.Column("api_key_id", sa.String(length=64), nullable=True))
    op.create_index("ix_jobs_of_key", "jobs", ["project_id", "api_key_id", "status"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_jobs_of_key", "jobs")
    for table in _NAMING:
        op.drop_column(table, "api_key_id")
    op.drop_table("received_bytes")
    op.drop_table("api_keys")
