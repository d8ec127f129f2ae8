"""Write the next migration: ``python -m experts_registry.migrations "add a column"``.

Compares the tables in ``tables.py`` with a fresh database that has every migration so far. Read the result before you
commit it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import sqlalchemy as sa


def write(message: str) -> None:
    """Put a new module into ``versions/``, with what *message* says in its docstring and name."""
    from alembic import command

    from experts_registry.database import Database
    from experts_registry.schema import alembic_config, known_revisions

    config = alembic_config()
    number = f"{len(known_revisions()) + 1:04d}"
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scratch.db"
        database = Database.connect(f"sqlite:///{path}")
        if known_revisions():
            asyncio.run(database.upgrade())
        engine = sa.create_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.revision(config, message, autogenerate=True, rev_id=number)
        engine.dispose()


if __name__ == "__main__":
    write(" ".join(sys.argv[1:]))
