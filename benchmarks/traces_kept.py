"""Whether every trace is written under load: ``python benchmarks/traces_kept.py [--seconds S] [--database-url URL] [--check]``.

64 keep-alive connections ask the service for one expert by name, as fast as a mock upstream lets them; once over SQLite, once over
PostgreSQL (a server of its own, or *database-url*). A row for each: requests a second, traces that stand in the database at the end, and
those that were dropped because too many waited. ``--check`` ends with status 1 where one is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import httpx
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from benchmarks.gateways import ADMIN_KEY, consilium
from benchmarks.load import Plan, run_load, write_bodies
from benchmarks.mock_upstream import Pace, mock_upstream
from benchmarks.postgres_server import postgres_server
from experts_registry.database import Database
from experts_registry.tables import traces

CONNECTIONS = 64
SETTLE_S = 30.0
"""Longest wait for what is still to be written."""
_DROPPED = re.compile(r"^consilium_traces_dropped_total(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Kept:
    """What one database kept."""

    database: str
    rate: float
    num_asked: int
    num_written: int
    num_dropped: int

    @property
    def is_whole(self) -> bool:
        return not self.num_dropped and self.num_written >= self.num_asked


async def measure(name: str, url: str, seconds: float) -> Kept:
    """Load, then a wait until nothing more is written."""
    async with mock_upstream(Pace()) as upstream, consilium(upstream, variables={"CONSILIUM_DATABASE_URL": url}) as gateway:
        with tempfile.TemporaryDirectory(prefix="consilium-benchmark-") as folder:
            asked = [f"Question {number}" for number in range(2000)]
            bodies = write_bodies(Path(folder) / "bodies", gateway.model, asked, stream=False)
            load = await run_load(Plan(gateway.target, str(bodies), CONNECTIONS, seconds))
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.target.port}", headers=headers, trust_env=False) as client:
            metrics = (await client.get("/metrics", timeout=30)).raise_for_status().text
        dropped = sum(int(float(value)) for value in _DROPPED.findall(metrics))
        database = Database.connect(url)
        try:
            written, give_up = await _num_traces(database), time.monotonic() + SETTLE_S
            while written + dropped < load.num_done and time.monotonic() < give_up:
                await asyncio.sleep(0.5)
                written = await _num_traces(database)
        finally:
            await database.close()
    return Kept(name, load.rate, load.num_done, written, dropped)


async def _num_traces(database: Database) -> int:
    async with database.reading() as connection:
        return int((await connection.execute(sa.select(sa.func.count()).select_from(traces))).scalar_one())


async def main(arguments: argparse.Namespace) -> int:
    """Measure and print; 1 when a trace is missing and ``--check`` is given."""
    with tempfile.TemporaryDirectory(prefix="consilium-benchmark-") as folder, postgres_server(arguments.database_url) as postgres:
        found = [
            await measure("SQLite", f"sqlite+aiosqlite:///{Path(folder) / 'traces.db'}", arguments.seconds),
            await measure("PostgreSQL", postgres, arguments.seconds),
        ]
    table = Table("database", "requests/s", "requests", "traces written", "dropped")
    for kept in found:
        table.add_row(kept.database, f"{kept.rate:,.0f}", f"{kept.num_asked:,}", f"{kept.num_written:,}", f"{kept.num_dropped:,}")
    Console().print(table)
    is_whole = all(kept.is_whole for kept in found)
    print(f"{'reached' if is_whole else 'MISSED'}: every request has its trace")
    return 1 if arguments.check and not is_whole else 0


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Whether every trace is written under load, over both databases.")
    parser.add_argument("--seconds", type=float, default=8.0, help="of load on each database (default 8)")
    parser.add_argument("--database-url", help="an empty PostgreSQL; without it one is started for the run")
    parser.add_argument("--check", action="store_true", help="end with status 1 when a trace is missing")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parse_arguments())))
