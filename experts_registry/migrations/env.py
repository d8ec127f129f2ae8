"""Run by Alembic: migrates over the connection, already locked and in a transaction, that ``schema.upgrade`` hands over."""

from __future__ import annotations

from alembic import context

from experts_registry.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,  # a migration that fails leaves nothing behind, in SQLite too
)
context.run_migrations()
