"""A process is killed while it keeps what its batch does: what it was told is kept is there, whole, and counted once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from domain.batch import RequestCounts
from experts_registry.batches import BatchStore
from experts_registry.database import Database

ROOT = Path(__file__).parents[3]
NUM_LINES = 2000
WRITER = """
import asyncio, sys
from domain.batch import *
from domain.chat import Choice, Usage
from domain.plan import Candidate
from experts_registry.batches import BatchStore
from experts_registry.database import Database

async def main(url, num_lines):
    store = BatchStore(Database.connect(url))
    await store.create(Batch("b", "/v1/completions", "in", BatchState.VALIDATING, 1.0, 2.0, runner=BatchRunner.COMMAND))
    await store.claim("writer", lease_s=60, runner=BatchRunner.COMMAND)
    journal = store.journal("b", "writer")
    await journal.keep_lines([InputLine(BatchLine(n, f"id-{n}"), 0, 1) for n in range(1, num_lines + 1)])
    answer = Candidate("a", (Choice({"content": "4"}),), Usage(10, 5))
    for n in range(1, num_lines, 2):
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        await journal.keep([KeptCall(n + 1, 0, answer)], [LineResult(n, f"r-{n}", 200, {"usage": usage})], num_calls=2)
        print(n, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def write_until_killed(database_url: str) -> int:
    """The last line that the writer said is kept."""
    last = 0
    command = [sys.executable, "-c", WRITER, database_url, str(NUM_LINES)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for told in writer.stdout:
            last = int(told)
            if last > 60:
                writer.kill()
                break
        return max([last, *(int(told) for told in writer.stdout if told.endswith("\n"))])


async def test_nothing_that_was_kept_is_lost_to_sigkill(database: Database, database_url: str) -> None:
    last = await asyncio.to_thread(write_until_killed, database_url)
    store = BatchStore(database)
    batch, journal = await store.get("b"), store.journal("b", "another")
    results = [result.number async for _, result in journal.results(failed=False)]
    settled = [number async for number, _, _ in journal.settled()]

    assert last < NUM_LINES - 1
    assert results == list(range(1, results[-1] + 1, 2))
    assert results[-1] in {last, last + 2}  # what was written may not have been told yet
    assert settled == [number + 1 for number in results]
    assert batch.counts == RequestCounts(NUM_LINES, len(results))
    assert (batch.num_calls, batch.usage.prompt_tokens) == (2 * len(results), 20 * len(results))
