"""Experts say how their managed vLLM server is started."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("experts", sa.Column("serving", sa.JSON(), nullable=False, server_default="{}"))
