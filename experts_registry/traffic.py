"""What went through the service, added up over time. Read from indexes alone, whatever the traces hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from experts_registry.database import Database
from experts_registry.tables import trace_experts, traces, traffic_days, traffic_hours

MAX_SAMPLE = 2000
"""Newest requests that quantiles of time are taken of."""
MAX_BY_MINUTE = 180
"""Longest time that requests are counted to the minute; beyond, by whole hours."""
MAX_EXPERTS_BY_MINUTE = 1500
"""Longest time that experts are counted to the minute: a day, and a little; beyond, by whole days of UTC."""
_HOUR, _DAY = 60, 1440
"""In minutes."""
_COUNTS = ("num_requests", "num_calls", "num_failed", "prompt_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True)
class Interval:
    """The requests of some minutes."""

    began_at: float
    """Seconds since the epoch."""
    num_ok: int = 0
    num_failed: int = 0
    num_cancelled: int = 0

    @property
    def num_requests(self) -> int:
        return self.num_ok + self.num_failed + self.num_cancelled


@dataclass(frozen=True, slots=True)
class ExpertTraffic:
    """What one expert was used for."""

    expert_id: str
    num_requests: int
    num_calls: int
    num_failed: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class TrafficView:
    """What went through between two moments."""

    intervals: Sequence[Interval]
    """All of one length, without gaps, oldest first."""
    experts: Sequence[ExpertTraffic]
    """Those that were called, the most used first."""
    median_ms: float | None
    p95_ms: float | None
    """Of requests that were answered, the newest ``MAX_SAMPLE``; None without any."""

    @property
    def num_requests(self) -> int:
        return sum(interval.num_requests for interval in self.intervals)

    @property
    def num_failed(self) -> int:
        return sum(interval.num_failed for interval in self.intervals)

    @property
    def error_share(self) -> float | None:
        return self.num_failed / self.num_requests if self.num_requests else None


def add(connection: sa.Connection, rows: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]) -> None:
    """Add traces that are written now, as columns with those of their calls, to the hours and days."""
    hours: dict[tuple[int, str], int] = {}
    days: dict[tuple[int, str], dict[str, int]] = {}
    for row, calls in rows:
        hour = row["minute"] // _HOUR, row["status"]
        hours[hour] = hours.get(hour, 0) + 1
        for call in calls:
            told = days.setdefault((row["minute"] // _DAY, call["expert_id"]), dict.fromkeys(_COUNTS, 0))
            told["num_requests"] += 1
            for name in _COUNTS[1:]:
                told[name] += call[name]
    # In one order everywhere: two processes that add at once then wait for each other, and not in a circle.
    by_hour = [{"hour": at, "status": status, "num_requests": num} for (at, status), num in sorted(hours.items())]
    by_day = [{"day": day, "expert_id": expert_id, **told} for (day, expert_id), told in sorted(days.items())]
    for table, values in ((traffic_hours, by_hour), (traffic_days, by_day)):
        if values:
            connection.execute(_adding(table, connection.dialect.name), values)


@cache
def _adding(table: sa.Table, dialect: str) -> sa.Insert:
    """Insert, or add to what is there. Made once: what SQLAlchemy has found out about a statement it keeps with it."""
    insert = sqlite_insert(table) if dialect == "sqlite" else postgresql_insert(table)
    keys = [column.name for column in table.primary_key]
    counted = {column.name: column + insert.excluded[column.name] for column in table.c if column.name not in keys}
    return insert.on_conflict_do_update(index_elements=keys, set_=counted)


async def forget(connection: AsyncConnection, timestamp: float) -> None:
    """What was counted before the hour, and the day, of *timestamp*."""
    minute = math.floor(timestamp / 60)
    await connection.execute(traffic_hours.delete().where(traffic_hours.c.hour < minute // _HOUR))
    await connection.execute(traffic_days.delete().where(traffic_days.c.day < minute // _DAY))


class TrafficStore:
    """Reads what traces hold, and what was counted as they were written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def view(self, *, since: float, until: float, num_intervals: int) -> TrafficView:
        """Between *since* and *until* (seconds since the epoch), in about *num_intervals* parts, none shorter than what is counted."""
        first, last = math.floor(since / 60), math.floor(until / 60)
        by_minute = last - first <= MAX_BY_MINUTE
        unit = 1 if by_minute else _HOUR
        width = max(1, math.ceil(((last - first) // unit + 1) / num_intervals)) * unit
        first -= first % width
        async with self._database.reading() as connection:
            counted = await _counted(connection, first, last, width) if by_minute else await _hours(connection, first, last, width)
            experts = await _experts(connection, first, last, by_minute=last - first <= MAX_EXPERTS_BY_MINUTE)
            times = (
                sa.select(traces.c.total_ms)
                .where(traces.c.minute.between(first, last), traces.c.status == "ok", traces.c.total_ms.is_not(None))
                .order_by(traces.c.minute.desc())
                .limit(MAX_SAMPLE)
            )
            sample = sorted((await connection.scalars(times)).all())
        return TrafficView(
            intervals=[
                Interval(number * width * 60.0, *(counted.get((number, status), 0) for status in ("ok", "error", "cancelled")))
                for number in range(first // width, last // width + 1)
            ],
            experts=sorted(experts, key=lambda expert: (-expert.num_requests, expert.expert_id)),
            median_ms=_quantile(sample, 0.5),
            p95_ms=_quantile(sample, 0.95),
        )

    async def of_expert(self, expert_id: str, *, since: float) -> ExpertTraffic:
        """What one expert did since a moment (seconds since the epoch)."""
        called = trace_experts.c
        sums = (sa.func.sum(column) for column in (called.num_calls, called.num_failed, called.prompt_tokens, called.completion_tokens))
        statement = sa.select(sa.func.count(), *sums).where(called.expert_id == expert_id, called.started_at >= since)
        async with self._database.reading() as connection:
            found = (await connection.execute(statement)).one()
        return ExpertTraffic(expert_id, *(int(value or 0) for value in found))


async def _counted(connection: AsyncConnection, first: int, last: int, width: int) -> dict[tuple[int, str], int]:
    part = (traces.c.minute // width).label("part")
    statement = (
        sa.select(part, traces.c.status, sa.func.count().label("num"))
        .where(traces.c.minute.between(first, last))
        .group_by(part, traces.c.status)
    )
    return {(row.part, row.status): row.num for row in await connection.execute(statement)}


async def _hours(connection: AsyncConnection, first: int, last: int, width: int) -> dict[tuple[int, str], int]:
    hour = traffic_hours.c.hour
    part = (hour // (width // _HOUR)).label("part")
    statement = (
        sa.select(part, traffic_hours.c.status, sa.func.sum(traffic_hours.c.num_requests).label("num"))
        .where(hour.between(first // _HOUR, last // _HOUR))
        .group_by(part, traffic_hours.c.status)
    )
    return {(row.part, row.status): int(row.num) for row in await connection.execute(statement)}


async def _experts(connection: AsyncConnection, first: int, last: int, *, by_minute: bool) -> list[ExpertTraffic]:
    table = trace_experts if by_minute else traffic_days
    within = table.c.minute.between(first, last) if by_minute else table.c.day.between(first // _DAY, last // _DAY)
    num = sa.func.count() if by_minute else sa.func.sum(table.c.num_requests)
    statement = (
        sa.select(table.c.expert_id, num, *(sa.func.sum(table.c[name]) for name in _COUNTS[1:])).where(within).group_by(table.c.expert_id)
    )
    return [ExpertTraffic(expert_id, *(int(value) for value in counts)) for expert_id, *counts in await connection.execute(statement)]


def _quantile(ascending: Sequence[float], share: float) -> float | None:
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))] if ascending else None
