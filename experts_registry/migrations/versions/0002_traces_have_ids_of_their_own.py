"""Traces have ids of their own; the caller's request id may stand in several.

Columns are renamed in place: copying ``traces``, as SQLite's other alterations do, would drop what refers to them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.drop_index("ix_traces_started_at_request_id", "traces")
    op.alter_column("traces", "request_id", new_column_name="id")
    op.create_index("ix_traces_started_at_id", "traces", ["started_at", "id"])
    op.add_column("traces", sa.Column("request_id", sa.String(length=128), nullable=False, server_default=""))
    op.execute("UPDATE traces SET request_id = id")
    op.create_index("ix_traces_request_id", "traces", ["request_id"])
    op.alter_column("trace_experts", "request_id", new_column_name="trace_id")
