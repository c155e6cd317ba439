"""Which request asked for a job."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("origin", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "origin")
