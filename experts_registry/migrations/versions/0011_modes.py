"""Strategies say how their experts work together, and what one request may use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("strategies", sa.Column("mode", sa.JSON(), nullable=False, server_default="{}"))
