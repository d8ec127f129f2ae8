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
    sa.Column("max_queued", sa.Integer, nullable=False, server_default="256"),
    sa.Column("first_token_timeout_s", sa.Double),
    sa.Column("idle_timeout_s", sa.Double, nullable=False, server_default="60"),
    sa.Column("hedge_after_s", sa.Double),
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
    sa.Column("adjustments", sa.JSON, nullable=False, server_default="{}"),
    sa.Column("mode", sa.JSON, nullable=False, server_default="{}"),
    sa.Column("aggregator", sa.String(32), nullable=False),
    sa.Column("aggregator_expert", sa.String(64), sa.ForeignKey("experts.id")),
    sa.Column("fallback_expert", sa.String(64), sa.ForeignKey("experts.id")),
    sa.Column("max_calls", sa.Integer, nullable=False),
    sa.Column("timeout_s", sa.Double, nullable=False),
    sa.Column("hedge_after_s", sa.Double),
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
    sa.Column("expert_fingerprint", sa.String(64)),
    sa.Index(None, "expert_id", "question_id"),
    sa.Index(
        "ix_profile_outcomes_right",
        "run_id",
        sqlite_where=sa.text("correct AND error IS NULL"),
        postgresql_where=sa.text("correct AND error IS NULL"),
    ),
)
"""``recorded`` is the registry version of the write: a later outcome of the same expert and question has a higher one.
``counts`` marks the one outcome per expert and question that is in the profile: the newest answer of the expert's card as it is now, by
``expert_fingerprint``. Where that is null the card is not known: the expert was gone when fingerprints came."""

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
    sa.Column("expert_fingerprint", sa.String(128)),
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
    sa.Column("minute", sa.Integer, nullable=False, server_default="0"),
    sa.Column("total_ms", sa.Double),
    sa.Column("error_code", sa.String(64)),
    sa.Column("judged", sa.String(8)),
    sa.Index(None, "started_at", "id"),
    sa.Index(None, "status", "started_at", "id"),
    sa.Index(None, "strategy", "started_at", "id"),
    sa.Index(None, "model", "started_at", "id"),
    sa.Index(None, "error_code", "started_at", "id"),
    sa.Index(None, "judged", "started_at", "id"),
    sa.Index(None, "minute", "status", "total_ms"),
)
"""``request_id`` is the caller's and may stand in several rows. ``minute`` is ``started_at`` in whole minutes: what is counted over time
is read from its index alone, as a row is mostly its document. ``judged`` is ``good`` or ``bad`` by the last feedback that counts."""

trace_experts = sa.Table(
    "trace_experts",
    metadata,
    sa.Column("trace_id", sa.String(128), sa.ForeignKey("traces.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("expert_id", sa.String(64), primary_key=True),
    sa.Column("started_at", sa.Double, nullable=False, server_default="0"),
    sa.Column("minute", sa.Integer, nullable=False, server_default="0"),
    sa.Column("num_calls", sa.Integer, nullable=False, server_default="1"),
    sa.Column("num_failed", sa.Integer, nullable=False, server_default="0"),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index(None, "expert_id", "started_at", "trace_id"),
    sa.Index(None, "minute", "expert_id", "num_calls", "num_failed", "prompt_tokens", "completion_tokens"),
)
"""Which experts were called in which request, and what for: to filter by, and to add up. The times are those of the request."""

traffic_hours = sa.Table(
    "traffic_hours",
    metadata,
    sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("status", sa.String(32), primary_key=True),
    sa.Column("num_requests", sa.BigInteger, nullable=False),
)
"""Requests of each hour since the epoch, by outcome. Added to with the traces, so that weeks are told without reading them."""

traffic_days = sa.Table(
    "traffic_days",
    metadata,
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("expert_id", sa.String(64), primary_key=True),
    sa.Column("num_requests", sa.BigInteger, nullable=False),
    sa.Column("num_calls", sa.BigInteger, nullable=False),
    sa.Column("num_failed", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
)
"""What each expert did on each day since the epoch (UTC)."""

files = sa.Table(
    "files",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("purpose", sa.String(32), nullable=False),
    sa.Column("filename", LossyText, nullable=False),
    sa.Column("num_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, index=True),
    sa.Column("key_id", sa.String(64)),
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
    sa.Column("key_id", sa.String(64)),
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
    sa.Column("vector", sa.LargeBinary),
    sa.Column("encoder_id", sa.String(256)),
    sa.Column("recalled", sa.JSON(none_as_null=True)),
    sa.Column("request_id", LossyText),
    sa.Column("status", sa.Integer),
    sa.Column("body", sa.JSON(none_as_null=True)),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Index(None, "batch_id", "state", "number"),
)
"""The requests of a batch; ``state`` is pending, answered or failed. The index is what each of them is paged by. ``vector`` is what was
routed, as the encoder ``encoder_id`` saw it, of lines that are not over; then their traces have it. ``recalled`` is what the memory gave
to a line, until it is over."""

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

trace_vectors = sa.Table(
    "trace_vectors",
    metadata,
    sa.Column("trace_id", sa.String(128), sa.ForeignKey("traces.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("encoder_id", sa.String(256), nullable=False),
    sa.Column("vector", sa.LargeBinary, nullable=False),
)
"""What was routed, as the encoder saw it: feedback that comes later is learnt with it. Goes with its trace."""

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("id", sa.String(192), primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
    sa.Column("changed", sa.BigInteger, nullable=False, index=True),
    sa.Column("trace_id", sa.String(128), nullable=False, index=True),
    sa.Column("request_id", sa.String(128), nullable=False, index=True),
    sa.Column("created_at", sa.Double, nullable=False, index=True),
    sa.Column("rolled_back_at", sa.Double),
    sa.Column("document", sa.JSON, nullable=False),
    sa.Column("encoder_id", sa.String(256)),
    sa.Column("vector", sa.LargeBinary),
)
"""A log: rows are added, taken back, and forgotten when they are old, and never changed otherwise. ``sequence`` is the log's version when
a row was added, ``changed`` when it was last touched. No foreign key to ``traces``: what was learnt outlives them."""

feedback_experts = sa.Table(
    "feedback_experts",
    metadata,
    sa.Column("feedback_id", sa.String(192), sa.ForeignKey("feedback.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("expert_id", sa.String(64), primary_key=True, index=True),
)
"""Which experts each event speaks of, to filter by."""

solved_problems = sa.Table(
    "solved_problems",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
    sa.Column("question", LossyText, nullable=False),
    sa.Column("answer", LossyText, nullable=False),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("skills", sa.JSON, nullable=False),
    sa.Column("expert_id", sa.String(64)),
    sa.Column("trace_id", sa.String(128), index=True),
    sa.Column("feedback_id", sa.String(192), index=True),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("used_at", sa.Double),
    sa.Column("encoder_id", sa.String(256)),
    sa.Column("vector", sa.LargeBinary),
    sa.UniqueConstraint("tenant", "digest"),
    sa.Index(None, "tenant", "sequence"),
)
"""The memory: problems whose answers somebody vouched for. ``digest`` is of the question as it is compared, so that one problem is kept
once. No foreign keys to ``traces`` and ``feedback``, which are forgotten sooner."""

memory_tenants = sa.Table(
    "memory_tenants",
    metadata,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False, index=True),
)
"""When each tenant's problems changed last, in one order for all: who follows reads those that are beyond what it has seen. A row stays
when its problems are gone."""

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("role", sa.String(16)),
    sa.Column("access", sa.JSON, nullable=False),
    sa.Column("limits", sa.JSON, nullable=False),
    sa.Column("secrets", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double),
    sa.Column("revoked_at", sa.Double),
)
"""``secrets`` holds hashes, never a secret. Rows are never deleted: a revoked key still has used something."""

key_usage = sa.Table(
    "key_usage",
    metadata,
    sa.Column("key_id", sa.String(64), primary_key=True),
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("expert_id", sa.String(64), primary_key=True),
    sa.Column("num_requests", sa.BigInteger, nullable=False),
    sa.Column("num_calls", sa.BigInteger, nullable=False),
    sa.Column("num_failed", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("nano_usd", sa.BigInteger, nullable=False),
    sa.Column("last_at", sa.Double, nullable=False),
)
"""What each key used on each UTC day: requests under the empty expert, calls under theirs. Processes add to it in groups."""

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("actor", sa.String(64), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("method", sa.String(8), nullable=False),
    sa.Column("path", LossyText, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("request_id", LossyText, nullable=False),
    sa.Column("before", sa.JSON(none_as_null=True)),
    sa.Column("after", sa.JSON(none_as_null=True)),
    sa.Column("target", sa.String(256), nullable=False, server_default=""),
    sa.Index(None, "at", "id"),
    sa.Index(None, "target", "at", "id"),
)
"""Who changed what, and when; without secrets."""
