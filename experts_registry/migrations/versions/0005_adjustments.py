"""Strategies say what is laid over the scores of their router."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("strategies", sa.Column("adjustments", sa.JSON(), nullable=False, server_default="{}"))
