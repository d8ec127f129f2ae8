"""Feedback on answers, and what was routed, to learn from it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "trace_vectors",
        sa.Column("trace_id", sa.String(length=128), nullable=False),
        sa.Column("encoder_id", sa.String(length=256), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["trace_id"], ["traces.id"], name=op.f("fk_trace_vectors_trace_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trace_id", name=op.f("pk_trace_vectors")),
    )
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(length=192), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("trace_id", sa.String(length=128), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("rolled_back_at", sa.Double(), nullable=True),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("encoder_id", sa.String(length=256), nullable=True),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
        sa.UniqueConstraint("sequence", name=op.f("uq_feedback_sequence")),
    )
    for column in ("changed", "trace_id", "request_id", "created_at"):
        op.create_index(op.f(f"ix_feedback_{column}"), "feedback", [column])
    op.create_table(
        "feedback_experts",
        sa.Column("feedback_id", sa.String(length=192), nullable=False),
        sa.Column("expert_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["feedback_id"], ["feedback.id"], name=op.f("fk_feedback_experts_feedback_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("feedback_id", "expert_id", name=op.f("pk_feedback_experts")),
    )
    op.create_index(op.f("ix_feedback_experts_expert_id"), "feedback_experts", ["expert_id"])
