"""The memory of solved problems, and what lines of a batch were shown of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "solved_problems",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("skills", sa.JSON(), nullable=False),
        sa.Column("expert_id", sa.String(length=64), nullable=True),
        sa.Column("trace_id", sa.String(length=128), nullable=True),
        sa.Column("feedback_id", sa.String(length=192), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.Column("encoder_id", sa.String(length=256), nullable=True),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_solved_problems")),
        sa.UniqueConstraint("sequence", name=op.f("uq_solved_problems_sequence")),
        sa.UniqueConstraint("tenant", "digest", name=op.f("uq_solved_problems_tenant_digest")),
    )
    op.create_index(op.f("ix_solved_problems_tenant_sequence"), "solved_problems", ["tenant", "sequence"])
    op.create_index(op.f("ix_solved_problems_trace_id"), "solved_problems", ["trace_id"])
    op.create_index(op.f("ix_solved_problems_feedback_id"), "solved_problems", ["feedback_id"])
    op.create_table(
        "memory_tenants",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_memory_tenants")),
    )
    op.create_index(op.f("ix_memory_tenants_version"), "memory_tenants", ["version"])
    op.add_column("batch_lines", sa.Column("recalled", sa.JSON(none_as_null=True), nullable=True))
