"""What pages count, filter and find by stands in columns and indexes of its own: of traces, their calls, and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("traces", sa.Column("minute", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("traces", sa.Column("total_ms", sa.Double(), nullable=True))
    op.add_column("traces", sa.Column("error_code", sa.String(length=64), nullable=True))
    op.add_column("traces", sa.Column("judged", sa.String(length=8), nullable=True))
    op.add_column("trace_experts", sa.Column("started_at", sa.Double(), nullable=False, server_default="0"))
    op.add_column("trace_experts", sa.Column("minute", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("trace_experts", sa.Column("num_calls", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("trace_experts", sa.Column("num_failed", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("trace_experts", sa.Column("prompt_tokens", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("trace_experts", sa.Column("completion_tokens", sa.BigInteger(), nullable=False, server_default="0"))
    _fill()
    for column in ("status", "strategy", "model", "error_code", "judged"):
        op.create_index(op.f(f"ix_traces_{column}_started_at_id"), "traces", [column, "started_at", "id"])
    op.create_index(op.f("ix_traces_minute_status_total_ms"), "traces", ["minute", "status", "total_ms"])
    op.drop_index(op.f("ix_trace_experts_expert_id"), table_name="trace_experts")
    op.create_index(op.f("ix_trace_experts_expert_id_started_at_trace_id"), "trace_experts", ["expert_id", "started_at", "trace_id"])
    counted = ["minute", "expert_id", "num_calls", "num_failed", "prompt_tokens", "completion_tokens"]
    op.create_index(op.f("ix_trace_experts_" + "_".join(counted)), "trace_experts", counted)
    op.create_table(
        "traffic_hours",
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("num_requests", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "status", name=op.f("pk_traffic_hours")),
    )
    op.create_table(
        "traffic_days",
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("expert_id", sa.String(length=64), nullable=False),
        sa.Column("num_requests", sa.BigInteger(), nullable=False),
        sa.Column("num_calls", sa.BigInteger(), nullable=False),
        sa.Column("num_failed", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "expert_id", name=op.f("pk_traffic_days")),
    )
    op.execute("INSERT INTO traffic_hours SELECT minute / 60, status, count(*) FROM traces GROUP BY minute / 60, status")
    op.execute(
        "INSERT INTO traffic_days SELECT minute / 1440, expert_id, count(*), sum(num_calls), sum(num_failed), sum(prompt_tokens), "
        "sum(completion_tokens) FROM trace_experts GROUP BY minute / 1440, expert_id"
    )
    right = sa.text("correct AND error IS NULL")
    op.create_index("ix_profile_outcomes_right", "profile_outcomes", ["run_id"], sqlite_where=right, postgresql_where=right)
    op.add_column("audit_log", sa.Column("target", sa.String(length=256), nullable=False, server_default=""))
    op.execute("UPDATE audit_log SET target = substr(path, 1, 256)")
    op.create_index(op.f("ix_audit_log_target_at_id"), "audit_log", ["target", "at", "id"])


def _fill() -> None:
    """From the documents of the traces that there are. Tokens and failures by expert begin with the next request."""
    if op.get_bind().dialect.name == "sqlite":
        minute, total_ms, error_code = (
            "CAST(started_at / 60 AS INTEGER)",
            "json_extract(document, '$.timings.total')",
            "substr(json_extract(document, '$.error_code'), 1, 64)",
        )
    else:
        minute, total_ms, error_code = (
            "floor(started_at / 60)::integer",
            "(document #>> '{timings,total}')::double precision",
            "left(document #>> '{error_code}', 64)",
        )
    op.execute(f"UPDATE traces SET minute = {minute}, total_ms = {total_ms}, error_code = {error_code}")  # noqa: S608  # no outside text
    op.execute(
        "UPDATE trace_experts SET started_at = (SELECT t.started_at FROM traces t WHERE t.id = trace_experts.trace_id), "
        "minute = (SELECT t.minute FROM traces t WHERE t.id = trace_experts.trace_id)"
    )
