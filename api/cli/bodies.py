"""Rows that are sent to the service, in bodies of bounded size. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

MAX_BYTES = 2_000_000
"""Sent at a time: far under the smallest limit that somebody would set for a body."""

Row = dict[str, Any]


def bodies_of(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """*rows* in their order, as many at a time as ``MAX_BYTES`` hold, one at least."""
    yield from _joined([row] for row in rows)


def bodies_of_groups(rows: Iterable[Row], key: str) -> Iterator[list[Row]]:
    """The same, where all rows with one value of *key* have to come together."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row.get(key)), []).append(row)
    yield from _joined(groups.values())


def _joined(groups: Iterable[list[Row]]) -> Iterator[list[Row]]:
    body: list[Row] = []
    size = 0
    for group in groups:
        group_size = len(json.dumps(group))
        if body and size + group_size > MAX_BYTES:
            yield body
            body, size = [], 0
        body.extend(group)
        size += group_size
    if body:
        yield body
