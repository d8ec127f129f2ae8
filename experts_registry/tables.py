"""The schema, as SQLAlchemy tables. Rows become domain values in the store of each table, nowhere else.

The schema is created and changed only by ``migrations/``; a test holds the two together. JSON is PostgreSQL's ``JSON``,
not ``JSONB``: the latter refuses the escape ``\\u0000``, which prompts may contain.
"""

from __future__ import annotations

import re

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class LossyText(sa.TypeDecorator[str]):
    """Text that others wrote (answers, error messages): a character that PostgreSQL or UTF-8 cannot hold becomes U+FFFD."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002  # SQLAlchemy's signature
        return None if value is None else _UNSTORABLE.sub("\ufffd", value)


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")

registry_state = sa.Table(
    "registry_state",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("questions_version", sa.BigInteger, nullable=False),
)
"""One row, id 1. Every change of what routing needs bumps it in its own transaction; other processes poll it."""

experts = sa.Table(
    "experts",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("backend", sa.String(32), nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("base_url", sa.Text),
    sa.Column("api_key", sa.Text),
    sa.Column("adapter_of", sa.Text),
    sa.Column("context_length", sa.Integer, nullable=False),
    sa.Column("chars_per_token", sa.Double, nullable=False),
    sa.Column("capabilities", sa.JSON, nullable=False),
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("skills", sa.JSON, nullable=False),
    sa.Column("exemplars", sa.JSON, nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("parameters_b", sa.Double),
    sa.Column("memory_mb", sa.Double),
    sa.Column("serving", sa.JSON, nullable=False, server_default="{}"),
    sa.Column("price_prompt", sa.Double, nullable=False),
    sa.Column("price_completion", sa.Double, nullable=False),
    sa.Column("sampling", sa.JSON, nullable=False),
    sa.Column("extra_body", sa.JSON, nullable=False),
    sa.Column("aggregation_prompt", sa.String(64), nullable=False),
    sa.Column("max_in_flight", sa.Integer, nullable=False),
    sa.Column("queue_timeout_s", sa.Double, nullable=False),
    sa.Column("timeout_s", sa.Double, nullable=False),
)

strategies = sa.Table(
    "strategies",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("router", sa.String(64), nullable=False),
    sa.Column("router_options", sa.JSON, nullable=False),
    sa.Column("pick_kind", sa.String(32), nullable=False),
    sa.Column("pick_k", sa.Integer, nullable=False),
    sa.Column("pick_threshold", sa.Double, nullable=False),
    sa.Column("aggregator", sa.String(32), nullable=False),
    sa.Column("aggregator_expert", sa.String(64), sa.ForeignKey("experts.id")),
    sa.Column("fallback_expert", sa.String(64), sa.ForeignKey("experts.id")),
    sa.Column("max_calls", sa.Integer, nullable=False),
    sa.Column("timeout_s", sa.Double, nullable=False),
)

retired_versions = sa.Table(
    "retired_versions",
    metadata,
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)
"""The last version of what was deleted: what is made again under the same id goes on from there, so no ETag comes twice."""

skills = sa.Table(
    "skills",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
)

labelled_questions = sa.Table(
    "labelled_questions",
    metadata,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("category", sa.String(128)),
    sa.Column("skills", sa.JSON, nullable=False),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("grader", sa.String(32)),
    sa.Column("history", sa.JSON, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
)

question_vectors = sa.Table(
    "question_vectors",
    metadata,
    sa.Column("encoder_id", sa.String(256), primary_key=True),
    sa.Column("question_id", sa.String(128), sa.ForeignKey("labelled_questions.id", ondelete="CASCADE"), primary_key=True, index=True),
    sa.Column("vector", sa.LargeBinary, nullable=False),
)

profile_runs = sa.Table(
    "profile_runs",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("finished_at", sa.Double),
    sa.Column("expert_ids", sa.JSON, nullable=False),
    sa.Column("question_ids", sa.JSON, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
)

profile_outcomes = sa.Table(
    "profile_outcomes",
    metadata,
    sa.Column("run_id", sa.String(64), sa.ForeignKey("profile_runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("expert_id", sa.String(64), primary_key=True),
    sa.Column("question_id", sa.String(128), primary_key=True),
    sa.Column("recorded", sa.BigInteger, nullable=False),
    sa.Column("counts", sa.Boolean, nullable=False),
    sa.Column("category", sa.String(128)),
    sa.Column("skills", sa.JSON, nullable=False),
    sa.Column("correct", sa.Boolean, nullable=False),
    sa.Column("answer", LossyText, nullable=False),
    sa.Column("latency_ms", sa.Double, nullable=False),
    sa.Column("error", LossyText),
    sa.Index(None, "expert_id", "question_id"),
)
"""``recorded`` is the registry version of the write: a later outcome of the same expert and question has a higher one.
``counts`` marks the one outcome per expert and question that is in the profile."""

profile_counts = sa.Table(
    "profile_counts",
    metadata,
    sa.Column("expert_id", sa.String(64), primary_key=True),
    sa.Column("skill", sa.String(128), primary_key=True),
    sa.Column("num_answered", sa.Integer, nullable=False),
    sa.Column("num_correct", sa.Integer, nullable=False),
)
"""The sum of the outcomes that count, kept with every write so that a snapshot costs the same after a million outcomes.
The empty skill holds the overall count."""

aggregator_outcomes = sa.Table(
    "aggregator_outcomes",
    metadata,
    sa.Column("expert_id", sa.String(64), primary_key=True),
    sa.Column("question_id", sa.String(128), primary_key=True),
    sa.Column("category", sa.String(128)),
    sa.Column("correct", sa.Boolean, nullable=False),
    sa.Column("answer", LossyText, nullable=False),
    sa.Column("error", LossyText),
)

traces = sa.Table(
    "traces",
    metadata,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("model", sa.String(256), nullable=False),
    sa.Column("strategy", sa.String(64)),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("document", sa.JSON, nullable=False),
    sa.Column("request_id", sa.String(128), nullable=False, server_default="", index=True),
    sa.Index(None, "started_at", "id"),
)
"""``request_id`` is the caller's and may stand in several rows."""

trace_experts = sa.Table(
    "trace_experts",
    metadata,
    sa.Column("trace_id", sa.String(128), sa.ForeignKey("traces.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("expert_id", sa.String(64), primary_key=True, index=True),
)
"""Which experts were called in which request, to filter by."""

files = sa.Table(
    "files",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("purpose", sa.String(32), nullable=False),
    sa.Column("filename", LossyText, nullable=False),
    sa.Column("num_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, index=True),
    sa.Index(None, "created_at", "id"),
)
"""What is known of each file; its contents are in the data dir, under the id."""

batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("endpoint", sa.String(64), nullable=False),
    sa.Column("input_file_id", LossyText, nullable=False),
    sa.Column("state", sa.String(32), nullable=False, index=True),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("completion_window", sa.String(16), nullable=False),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("runner", sa.String(32), nullable=False),
    sa.Column("entered", sa.JSON, nullable=False),
    sa.Column("num_lines", sa.Integer, nullable=False),
    sa.Column("num_completed", sa.Integer, nullable=False),
    sa.Column("num_failed", sa.Integer, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("usage_details", sa.JSON, nullable=False),
    sa.Column("num_calls", sa.BigInteger, nullable=False),
    sa.Column("errors", sa.JSON, nullable=False),
    sa.Column("output_file_id", sa.String(64)),
    sa.Column("error_file_id", sa.String(64)),
    sa.Column("ended_at", sa.Double),
    sa.Column("owner", sa.String(128)),
    sa.Column("leased_until", sa.Double),
    sa.Index(None, "created_at", "id"),
)
"""``owner`` is who works on it, until ``leased_until`` (seconds since the epoch) unless it says again that it does. A batch's
row is locked first by whoever writes anything of the batch."""

batch_lines = sa.Table(
    "batch_lines",
    metadata,
    sa.Column("batch_id", sa.String(64), sa.ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("custom_id", sa.Text, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("num_bytes", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("route", sa.JSON(none_as_null=True)),
    sa.Column("request_id", LossyText),
    sa.Column("status", sa.Integer),
    sa.Column("body", sa.JSON(none_as_null=True)),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Index(None, "batch_id", "state", "number"),
)
"""The requests of a batch; ``state`` is pending, answered or failed. The index is what each of them is paged by."""

batch_calls = sa.Table(
    "batch_calls",
    metadata,
    sa.Column("batch_id", sa.String(64), sa.ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("answered", sa.Boolean, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("outcome", sa.JSON, nullable=False),
)
"""Calls that have ended, of lines that are not over: what a restart does not repeat."""
