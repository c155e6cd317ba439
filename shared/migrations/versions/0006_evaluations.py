"""What new versions must show before they go live, sweeps, and corrected answers."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("adapters", sa.Column("promotion_policy", sa.JSON(), nullable=True))
    op.add_column("promotions", sa.Column("decision", sa.JSON(), nullable=True))
    op.add_column("answers", sa.Column("correction", sa.Text(), nullable=True))
    op.create_index("ix_answers_of_version", "answers", ["project_id", "adapter", "version", "created_at"])
    op.create_table(
        "sweep_entries",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id"), nullable=False, index=True),
        sa.Column("entry", sa.JSON(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("sweep_entries")
    op.drop_index("ix_answers_of_version", "answers")
    op.drop_column("answers", "correction")
    op.drop_column("promotions", "decision")
    op.drop_column("adapters", "promotion_policy")
