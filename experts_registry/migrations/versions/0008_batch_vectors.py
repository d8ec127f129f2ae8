"""Lines of batches keep what was routed until they are over, for feedback to be learnt from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("batch_lines", sa.Column("vector", sa.LargeBinary(), nullable=True))
    op.add_column("batch_lines", sa.Column("encoder_id", sa.String(length=256), nullable=True))
