"""Many rows into one table, at what they cost the database and not what they cost Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import sqlalchemy as sa

_MOST_TOGETHER = 1024
"""Rows of one statement, at most."""
_MOST_VALUES = 32_766
"""That one statement of SQLite's takes."""


def insert_many(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert *rows*, all of which have the same columns in the same order, with values that the drivers take as they are.

    SQLite's driver lets go of the interpreter three or four times for each statement and steps through one row after the other; beside a
    busy event loop it may wait 5 ms for its next turn (``sys.getswitchinterval``), every time, and then the loop waits for it. A statement
    for many rows is one step, and SQLAlchemy looks at it once.
    PostgreSQL's driver sends all rows together as it is.
    """
    if not rows:
        return
    if connection.dialect.name != "sqlite":
        connection.execute(table.insert(), rows)
        return
    columns = tuple(rows[0])
    for some in _parts(rows, _MOST_VALUES // len(columns)):
        connection.exec_driver_sql(_statement(table.name, columns, len(some)), tuple(chain.from_iterable(map(dict.values, some))))


def _parts(rows: Sequence[dict[str, Any]], most: int) -> Iterator[Sequence[dict[str, Any]]]:
    """*rows* in pieces whose sizes are powers of two: the driver keeps what it has prepared, and so there are only eleven of each."""
    start, size = 0, _MOST_TOGETHER
    while start < len(rows):
        while size > min(most, len(rows) - start):
            size //= 2
        yield rows[start : start + size]
        start += size


@lru_cache(maxsize=64)
def _statement(table: str, columns: tuple[str, ...], num_rows: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * num_rows)}"  # noqa: S608  # names of our own tables
