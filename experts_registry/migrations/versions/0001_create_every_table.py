"""Create every table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "aggregator_outcomes",
        sa.Column("expert_id", sa.String(length=64), nullable=False),
        sa.Column("question_id", sa.String(length=128), nullable=False),
        sa.Column("category", sa.String(length=128), nullable=True),
        sa.Column("correct", sa.Boolean(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("expert_id", "question_id", name=op.f("pk_aggregator_outcomes")),
    )
    op.create_table(
        "experts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("backend", sa.String(length=32), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=True),
        sa.Column("api_key", sa.Text(), nullable=True),
        sa.Column("adapter_of", sa.Text(), nullable=True),
        sa.Column("context_length", sa.Integer(), nullable=False),
        sa.Column("chars_per_token", sa.Double(), nullable=False),
        sa.Column("capabilities", sa.JSON(), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("skills", sa.JSON(), nullable=False),
        sa.Column("exemplars", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("parameters_b", sa.Double(), nullable=True),
        sa.Column("memory_mb", sa.Double(), nullable=True),
        sa.Column("price_prompt", sa.Double(), nullable=False),
        sa.Column("price_completion", sa.Double(), nullable=False),
        sa.Column("sampling", sa.JSON(), nullable=False),
        sa.Column("extra_body", sa.JSON(), nullable=False),
        sa.Column("aggregation_prompt", sa.String(length=64), nullable=False),
        sa.Column("max_in_flight", sa.Integer(), nullable=False),
        sa.Column("queue_timeout_s", sa.Double(), nullable=False),
        sa.Column("timeout_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experts")),
    )
    op.create_table(
        "labelled_questions",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("category", sa.String(length=128), nullable=True),
        sa.Column("skills", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("grader", sa.String(length=32), nullable=True),
        sa.Column("history", sa.JSON(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_labelled_questions")),
    )
    op.create_table(
        "profile_counts",
        sa.Column("expert_id", sa.String(length=64), nullable=False),
        sa.Column("skill", sa.String(length=128), nullable=False),
        sa.Column("num_answered", sa.Integer(), nullable=False),
        sa.Column("num_correct", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("expert_id", "skill", name=op.f("pk_profile_counts")),
    )
    op.create_table(
        "profile_runs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("expert_ids", sa.JSON(), nullable=False),
        sa.Column("question_ids", sa.JSON(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_profile_runs")),
    )
    op.create_table(
        "registry_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("questions_version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registry_state")),
    )
    op.execute("INSERT INTO registry_state (id, version, questions_version) VALUES (1, 0, 0)")
    op.create_table(
        "retired_versions",
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "id", name=op.f("pk_retired_versions")),
    )
    op.create_table(
        "skills",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_skills")),
    )
    op.create_table(
        "traces",
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("strategy", sa.String(length=64), nullable=True),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_traces")),
    )
    op.create_index(op.f("ix_traces_started_at_request_id"), "traces", ["started_at", "request_id"])
    op.create_table(
        "profile_outcomes",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("expert_id", sa.String(length=64), nullable=False),
        sa.Column("question_id", sa.String(length=128), nullable=False),
        sa.Column("recorded", sa.BigInteger(), nullable=False),
        sa.Column("counts", sa.Boolean(), nullable=False),
        sa.Column("category", sa.String(length=128), nullable=True),
        sa.Column("skills", sa.JSON(), nullable=False),
        sa.Column("correct", sa.Boolean(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["profile_runs.id"], name=op.f("fk_profile_outcomes_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "expert_id", "question_id", name=op.f("pk_profile_outcomes")),
    )
    op.create_index(op.f("ix_profile_outcomes_expert_id_question_id"), "profile_outcomes", ["expert_id", "question_id"])
    op.create_table(
        "question_vectors",
        sa.Column("encoder_id", sa.String(length=256), nullable=False),
        sa.Column("question_id", sa.String(length=128), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["question_id"], ["labelled_questions.id"], name=op.f("fk_question_vectors_question_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("encoder_id", "question_id", name=op.f("pk_question_vectors")),
    )
    op.create_index(op.f("ix_question_vectors_question_id"), "question_vectors", ["question_id"])
    op.create_table(
        "strategies",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("router", sa.String(length=64), nullable=False),
        sa.Column("router_options", sa.JSON(), nullable=False),
        sa.Column("pick_kind", sa.String(length=32), nullable=False),
        sa.Column("pick_k", sa.Integer(), nullable=False),
        sa.Column("pick_threshold", sa.Double(), nullable=False),
        sa.Column("aggregator", sa.String(length=32), nullable=False),
        sa.Column("aggregator_expert", sa.String(length=64), nullable=True),
        sa.Column("fallback_expert", sa.String(length=64), nullable=True),
        sa.Column("max_calls", sa.Integer(), nullable=False),
        sa.Column("timeout_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["aggregator_expert"], ["experts.id"], name=op.f("fk_strategies_aggregator_expert")),
        sa.ForeignKeyConstraint(["fallback_expert"], ["experts.id"], name=op.f("fk_strategies_fallback_expert")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_strategies")),
    )
    op.create_table(
        "trace_experts",
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("expert_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["traces.request_id"], name=op.f("fk_trace_experts_request_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("request_id", "expert_id", name=op.f("pk_trace_experts")),
    )
    op.create_index(op.f("ix_trace_experts_expert_id"), "trace_experts", ["expert_id"])
