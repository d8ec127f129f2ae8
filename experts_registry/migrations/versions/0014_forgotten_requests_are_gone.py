"""The audit log keeps no request that was forgotten: deleting one wrote all of its conversation there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0012"

_AUDIT_LOG = sa.table("audit_log", sa.column("path", sa.Text), sa.column("before", sa.JSON(none_as_null=True)))


def upgrade() -> None:
    of_requests = _AUDIT_LOG.c.path.startswith("/admin/api/traces/", autoescape=True)
    op.get_bind().execute(_AUDIT_LOG.update().where(of_requests).values(before=None))
