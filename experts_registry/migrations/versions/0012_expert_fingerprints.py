"""Outcomes tell of which card of their expert they are; what is there is taken to be of the card that is there."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_EXPERTS = sa.table(
    "experts",
    *(sa.column(name, sa.String) for name in ("id", "backend", "model", "adapter_of", "aggregation_prompt")),
    *(sa.column(name, sa.JSON) for name in ("sampling", "extra_body", "serving")),
)
_OUTCOMES, _AGGREGATOR_OUTCOMES = (
    sa.table(name, sa.column("expert_id", sa.String), sa.column("expert_fingerprint", sa.String))
    for name in ("profile_outcomes", "aggregator_outcomes")
)


def upgrade() -> None:
    op.add_column("profile_outcomes", sa.Column("expert_fingerprint", sa.String(length=64), nullable=True))
    op.add_column("aggregator_outcomes", sa.Column("expert_fingerprint", sa.String(length=128), nullable=True))
    connection = op.get_bind()
    for row in connection.execute(sa.select(_EXPERTS)).all():
        fingerprint = _fingerprint(row)
        for table, value in ((_OUTCOMES, fingerprint), (_AGGREGATOR_OUTCOMES, f"{fingerprint} {row.aggregation_prompt}")):
            connection.execute(table.update().where(table.c.expert_id == row.id).values(expert_fingerprint=value))


def _fingerprint(row: Any) -> str:
    """``domain.experts.ExpertCard.fingerprint`` as it was when this was written."""
    arguments = (row.serving or {}).get("extra_arguments", [])
    content = [row.backend, row.model, row.adapter_of, row.sampling, row.extra_body, arguments]
    text = json.dumps(_comparable(content), sort_keys=True)
    return f"1-{hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=10).hexdigest()}"


def _comparable(value: Any) -> Any:
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, dict):
        return {str(key): _comparable(inner) for key, inner in value.items()}
    return [_comparable(inner) for inner in value]
