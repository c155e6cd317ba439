"""The first schema: documents, jobs with their events, datasets, adapters, workers."""

import sqlalchemy as sa
from alembic import op

from shared.database import now

revision = "0001"
down_revision = None

LEGAL_TRANSITIONS = (
    "queued>running", "queued>paused", "queued>failed", "queued>cancelled",
    "running>queued", "running>pausing", "running>succeeded", "running>failed", "running>cancelled",
    "pausing>paused", "pausing>succeeded", "pausing>failed", "pausing>cancelled",
    "paused>queued", "paused>cancelled", "paused>failed",
)  # fmt: skip
_LEGAL = ", ".join(f"'{pair}'" for pair in LEGAL_TRANSITIONS)
_ILLEGAL = (
    f"((OLD.status <> NEW.status AND (OLD.status || '>' || NEW.status) NOT IN ({_LEGAL})) OR NEW.attempt < OLD.attempt)"
)

SQLITE_TRIGGERS = (
    f"""CREATE TRIGGER jobs_legal BEFORE UPDATE OF status, attempt ON jobs WHEN {_ILLEGAL}
    BEGIN SELECT RAISE(ABORT, 'illegal transition'); END""",
    """CREATE TRIGGER jobs_born AFTER INSERT ON jobs
    BEGIN INSERT INTO job_events (job_id, attempt, type, level, message, data, created_at)
    VALUES (NEW.id, NEW.attempt, 'status', 'info', 'Created ' || NEW.kind || ' job: ' || NEW.id,
            json_object('to', NEW.status), (julianday('now') - 2440587.5) * 86400.0); END""",
    """CREATE TRIGGER jobs_moved AFTER UPDATE OF status ON jobs WHEN OLD.status <> NEW.status
    BEGIN INSERT INTO job_events (job_id, attempt, type, level, message, data, created_at)
    VALUES (NEW.id, NEW.attempt, 'status', CASE NEW.status WHEN 'failed' THEN 'error' ELSE 'info' END,
            'The job is ' || NEW.status || CASE NEW.status WHEN 'failed'
                THEN ': ' || coalesce(NEW.error_detail, '') ELSE '' END,
            json_object('from', OLD.status, 'to', NEW.status, 'code', NEW.error_code),
            (julianday('now') - 2440587.5) * 86400.0); END""",
    """CREATE TRIGGER job_events_unchanged BEFORE UPDATE ON job_events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
    """CREATE TRIGGER job_events_kept BEFORE DELETE ON job_events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
)

POSTGRES_TRIGGERS = (
    f"""CREATE FUNCTION jobs_legal() RETURNS trigger AS $$ BEGIN
    IF {_ILLEGAL} THEN RAISE EXCEPTION 'illegal transition'; END IF; RETURN NEW; END $$ LANGUAGE plpgsql""",
    """CREATE TRIGGER jobs_legal BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_legal()""",
    """CREATE FUNCTION jobs_born() RETURNS trigger AS $$ BEGIN
    INSERT INTO job_events (job_id, attempt, type, level, message, data, created_at)
    VALUES (NEW.id, NEW.attempt, 'status', 'info', 'Created ' || NEW.kind || ' job: ' || NEW.id,
            json_build_object('to', NEW.status), extract(epoch from clock_timestamp()));
    RETURN NEW; END $$ LANGUAGE plpgsql""",
    """CREATE TRIGGER jobs_born AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_born()""",
    """CREATE FUNCTION jobs_moved() RETURNS trigger AS $$ BEGIN
    IF OLD.status <> NEW.status THEN
    INSERT INTO job_events (job_id, attempt, type, level, message, data, created_at)
    VALUES (NEW.id, NEW.attempt, 'status', CASE NEW.status WHEN 'failed' THEN 'error' ELSE 'info' END,
            'The job is ' || NEW.status || CASE NEW.status WHEN 'failed'
                THEN ': ' || coalesce(NEW.error_detail, '') ELSE '' END,
            json_build_object('from', OLD.status, 'to', NEW.status, 'code', NEW.error_code),
            extract(epoch from clock_timestamp()));
    END IF; RETURN NEW; END $$ LANGUAGE plpgsql""",
    """CREATE TRIGGER jobs_moved AFTER UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_moved()""",
    """CREATE FUNCTION job_events_kept() RETURNS trigger AS $$ BEGIN
    RAISE EXCEPTION 'events are append-only'; END $$ LANGUAGE plpgsql""",
    """CREATE TRIGGER job_events_kept BEFORE UPDATE OR DELETE ON job_events
    FOR EACH ROW EXECUTE FUNCTION job_events_kept()""",
)
TABLES = (
    "adapters",
    "documents",
    "idempotency_keys",
    "jobs",
    "workers",
    "datasets",
    "job_events",
    "promotions",
    "adapter_versions",
    "dataset_documents",
)


def upgrade() -> None:
    _create_tables()
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for trigger in SQLITE_TRIGGERS if is_sqlite else POSTGRES_TRIGGERS:
        op.execute(sa.text(trigger.replace(":", "\\:")))


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)  # its triggers go with it
    if op.get_bind().dialect.name == "postgresql":
        for function in ("jobs_legal", "jobs_born", "jobs_moved", "job_events_kept"):
            op.execute(f"DROP FUNCTION {function}()")


def _create_tables() -> None:
    op.create_table(
        "adapters",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("live_number", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id", "name"),
    )
    op.create_index(op.f("ix_adapters_project_id"), "adapters", ["project_id"], unique=False)
    op.create_table(
        "documents",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("filename", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_detail", sa.String(length=1000), nullable=True),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id", "sha256"),
    )
    op.create_index(op.f("ix_documents_project_id"), "documents", ["project_id"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "key"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("waits_for", sa.String(length=64), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("num_crashes", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("progress_at", sa.Double(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_detail", sa.String(length=2000), nullable=True),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.Column("queued_at", sa.Double(), server_default=now(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["waits_for"],
            ["jobs.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_jobs_project_id"), "jobs", ["project_id"], unique=False)
    op.create_index("ix_jobs_ready", "jobs", ["status", "kind", "priority", "created_at"], unique=False)
    op.create_index(op.f("ix_jobs_waits_for"), "jobs", ["waits_for"], unique=False)
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("heartbeat_at", sa.Double(), server_default=now(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "datasets",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("base_model", sa.String(length=512), nullable=False),
        sa.Column("statistics", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["jobs.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("job_id"),
    )
    op.create_index(op.f("ix_datasets_project_id"), "datasets", ["project_id"], unique=False)
    op.create_table(
        "job_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("message", sa.String(length=2000), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["jobs.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_job_events_job_id"), "job_events", ["job_id"], unique=False)
    op.create_table(
        "promotions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("adapter_id", sa.String(length=64), nullable=False),
        sa.Column("from_number", sa.BigInteger(), nullable=True),
        sa.Column("to_number", sa.BigInteger(), nullable=True),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["adapter_id"],
            ["adapters.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_promotions_adapter_id"), "promotions", ["adapter_id"], unique=False)
    op.create_table(
        "adapter_versions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("adapter_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=True),
        sa.Column("dataset_id", sa.String(length=64), nullable=True),
        sa.Column("base_model", sa.String(length=512), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), server_default=now(), nullable=False),
        sa.Column("broken_reason", sa.String(length=1000), nullable=True),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["adapter_id"],
            ["adapters.id"],
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.id"],
        ),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["jobs.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("adapter_id", "number"),
        sa.UniqueConstraint("job_id"),
    )
    op.create_index(op.f("ix_adapter_versions_adapter_id"), "adapter_versions", ["adapter_id"], unique=False)
    op.create_index(op.f("ix_adapter_versions_dataset_id"), "adapter_versions", ["dataset_id"], unique=False)
    op.create_table(
        "dataset_documents",
        sa.Column("dataset_id", sa.String(length=64), nullable=False),
        sa.Column("document_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.id"],
        ),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["documents.id"],
        ),
        sa.PrimaryKeyConstraint("dataset_id", "document_id"),
    )
    op.create_index(op.f("ix_dataset_documents_document_id"), "dataset_documents", ["document_id"], unique=False)
