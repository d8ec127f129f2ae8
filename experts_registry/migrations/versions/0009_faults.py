"""Experts say how long their silence is waited out and how many calls may wait; strategies, after which silence another is asked too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("experts", sa.Column("max_queued", sa.Integer(), nullable=False, server_default="256"))
    op.add_column("experts", sa.Column("first_token_timeout_s", sa.Double(), nullable=True))
    op.add_column("experts", sa.Column("idle_timeout_s", sa.Double(), nullable=False, server_default="60"))
    op.add_column("experts", sa.Column("hedge_after_s", sa.Double(), nullable=True))
    op.add_column("strategies", sa.Column("hedge_after_s", sa.Double(), nullable=True))
