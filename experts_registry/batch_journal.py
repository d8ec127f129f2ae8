"""What is durable of one batch: its lines, their routes, calls that have ended, and how each line came out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.batch import Batch, InputLine, KeptCall, LineResult, LineRoute, RoutedLine
from domain.chat import Usage
from domain.errors import NotFound
from domain.plan import Outcome
from experts_registry import batch_rows
from experts_registry.batch_access import lock_owned, row_of
from experts_registry.batch_rows import LineState
from experts_registry.batch_usage import CallKey, gained
from experts_registry.database import Database
from experts_registry.outcome_codec import outcome_from_object
from experts_registry.questions import chunks
from experts_registry.tables import batch_calls, batch_lines, batches

PAGE = 1000
"""Lines read at once: a page is half a megabyte and some milliseconds."""
RESULT_PAGE = 100
"""Results read at once: an answer may be many kilobytes."""

_PENDING = batch_lines.c.state == LineState.PENDING.value
_ROUTED = tuple(batch_lines.c[name] for name in ("number", "custom_id", "offset", "num_bytes", "route", "vector", "encoder_id", "recalled"))
_STORE_ROUTE = (
    batch_lines.update()
    .where(batch_lines.c.batch_id == sa.bindparam("of_batch"), batch_lines.c.number == sa.bindparam("of_number"), _PENDING)
    .values(
        route=sa.bindparam("new_route", type_=batch_lines.c.route.type),
        vector=sa.bindparam("new_vector", type_=batch_lines.c.vector.type),
        encoder_id=sa.bindparam("new_encoder_id", type_=batch_lines.c.encoder_id.type),
        recalled=sa.bindparam("new_recalled", type_=batch_lines.c.recalled.type),
    )
)
_STORE_RESULT = (
    batch_lines.update()
    .where(batch_lines.c.batch_id == sa.bindparam("of_batch"), batch_lines.c.number == sa.bindparam("of_number"), _PENDING)
    .values(
        state=sa.bindparam("new_state"),
        request_id=sa.bindparam("new_request_id", type_=batch_lines.c.request_id.type),
        status=sa.bindparam("new_status"),
        body=sa.bindparam("new_body", type_=batch_lines.c.body.type),
        error=sa.bindparam("new_error", type_=batch_lines.c.error.type),
        vector=None,
        encoder_id=None,
        recalled=sa.null(),
    )
)


class DatabaseJournal:
    """Satisfies ``orchestrator.batch.ports.BatchJournal``. Everything kept is kept by the batch's owner only.

    Reading is by pages, each a short transaction of its own: nothing is held open while the reader works.
    """

    def __init__(self, database: Database, batch_id: str, owner: str) -> None:
        self._database, self._batch_id, self._owner = database, batch_id, owner
        self._of_line = batch_lines.c.batch_id == batch_id
        self._of_call = batch_calls.c.batch_id == batch_id

    async def keep_lines(self, lines: Sequence[InputLine]) -> None:
        """Valid lines of the input; those that are known stay as they are."""
        rows = {line.line.number: batch_rows.line_row(self._batch_id, line) for line in lines}
        async with self._database.session() as connection:
            await self._lock(connection)
            known = await self._known(connection, rows)
            new = [row for number, row in rows.items() if number not in known]
            for some in chunks(new):
                await connection.execute(batch_lines.insert(), list(some))
            if new:
                await self._add(connection, num_lines=len(new))

    async def drop_lines(self) -> None:
        """Every line, and the count of them."""
        async with self._database.session() as connection:
            await self._lock(connection)
            await connection.execute(batch_calls.delete().where(self._of_call))
            await connection.execute(batch_lines.delete().where(self._of_line))
            none = {"num_lines": 0, "num_completed": 0, "num_failed": 0}
            await connection.execute(batches.update().where(batches.c.id == self._batch_id).values(none))

    async def keep_routes(self, routes: Sequence[tuple[int, LineRoute]]) -> None:
        """By the number of the line; a line that is over keeps what it has."""
        values = await asyncio.to_thread(lambda: [batch_rows.route_values(number, route) for number, route in routes])
        async with self._database.session() as connection:
            await self._lock(connection)
            await self._run(connection, _STORE_ROUTE, values)

    async def keep(self, calls: Sequence[KeptCall], results: Sequence[LineResult], *, num_calls: int) -> Batch:
        """Everything of it or nothing; what is kept already is not counted again. The batch afterwards.

        Tokens count when their call is kept; when a line is over, what its answer says beyond them is added.
        """
        ended = {result.number: result for result in results}
        made = {(call.number, call.position): call for call in calls}
        rows, values = await asyncio.to_thread(self._encoded, made, ended)
        async with self._database.session() as connection:
            row = await self._lock(connection)
            pending = await self._pending(connection, [*ended, *(number for number, _ in made)])
            kept = await self._kept(connection, {number for number, _ in made} | ended.keys())
            over = {number: result for number, result in ended.items() if number in pending}
            new = {key: call for key, call in made.items() if key[0] in pending and key not in kept}
            await self._run(connection, _STORE_RESULT, [values[number] for number in over])
            for some in chunks(list(ended)):
                await connection.execute(batch_calls.delete().where(self._of_call, batch_calls.c.number.in_(some)))
            for some_rows in chunks([rows[key] for key in new if key[0] not in over]):
                await connection.execute(batch_calls.insert(), list(some_rows))
            is_repeated = (made or ended) and not new and not over
            if not is_repeated:
                num_failed = sum(result.error is not None for result in over.values())
                before = Usage(row["prompt_tokens"], row["completion_tokens"], row["usage_details"])
                await self._add(
                    connection,
                    num_completed=len(over) - num_failed,
                    num_failed=num_failed,
                    num_calls=num_calls,
                    usage=before + gained(over, new, kept),
                )
            return batch_rows.from_row(await row_of(connection, self._batch_id))

    async def pending(self) -> AsyncGenerator[RoutedLine, None]:
        """Lines that are not over, by number."""
        last = 0
        while True:
            statement = sa.select(*_ROUTED).where(self._of_line, _PENDING, batch_lines.c.number > last)
            rows = await self._page(statement.order_by(batch_lines.c.number).limit(PAGE))
            for row in rows:
                yield batch_rows.routed_line(row)
            if len(rows) < PAGE:
                return
            last = rows[-1]["number"]

    async def lines(self, numbers: Sequence[int]) -> Mapping[int, RoutedLine]:
        """These lines by number; those that are over are left out."""
        found: dict[int, RoutedLine] = {}
        for some in chunks(list(numbers)):
            rows = await self._page(sa.select(*_ROUTED).where(self._of_line, _PENDING, batch_lines.c.number.in_(some)))
            found |= {row["number"]: batch_rows.routed_line(row) for row in rows}
        return found

    async def calls(self, numbers: Sequence[int]) -> Mapping[int, Mapping[int, Outcome]]:
        """The kept calls of these lines: number to position to outcome."""
        found: dict[int, dict[int, Outcome]] = {}
        columns = (batch_calls.c.number, batch_calls.c.position, batch_calls.c.outcome)
        for some in chunks(list(numbers)):
            for row in await self._page(sa.select(*columns).where(self._of_call, batch_calls.c.number.in_(some))):
                found.setdefault(row["number"], {})[row["position"]] = outcome_from_object(row["outcome"])
        return found

    async def settled(self) -> AsyncGenerator[tuple[int, int, bool], None]:
        """(number, position, whether it answered) of every kept call of lines that are not over, by number and position."""
        columns = (batch_calls.c.number, batch_calls.c.position, batch_calls.c.answered)
        key = sa.tuple_(batch_calls.c.number, batch_calls.c.position)
        last = (0, 0)
        while True:
            behind = key > sa.tuple_(sa.literal(last[0]), sa.literal(last[1])) if last[0] else sa.true()
            statement = sa.select(*columns).where(self._of_call, behind)
            rows = await self._page(statement.order_by(batch_calls.c.number, batch_calls.c.position).limit(PAGE))
            for row in rows:
                yield row["number"], row["position"], row["answered"]
            if len(rows) < PAGE:
                return
            last = rows[-1]["number"], rows[-1]["position"]

    async def results(self, *, failed: bool) -> AsyncGenerator[tuple[str, LineResult], None]:
        """The lines that are over with their custom ids, by number: those with an error when *failed*, else those with an answer."""
        state = (LineState.FAILED if failed else LineState.ANSWERED).value
        columns = [getattr(batch_lines.c, name) for name in ("number", "custom_id", "request_id", "status", "body", "error")]
        last = 0
        while True:
            statement = sa.select(*columns).where(self._of_line, batch_lines.c.state == state, batch_lines.c.number > last)
            rows = await self._page(statement.order_by(batch_lines.c.number).limit(RESULT_PAGE))
            for row in rows:
                yield row["custom_id"], batch_rows.line_result(row)
            if len(rows) < RESULT_PAGE:
                return
            last = rows[-1]["number"]

    async def _lock(self, connection: AsyncConnection) -> sa.RowMapping:
        return await lock_owned(connection, self._batch_id, self._owner)

    async def _page(self, statement: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        async with self._database.reading() as connection:
            rows: Sequence[sa.RowMapping] = (await connection.execute(statement)).mappings().all()
        return rows

    async def _run(self, connection: AsyncConnection, statement: sa.Update, values: Sequence[dict[str, Any]]) -> None:
        for some in chunks(values):
            await connection.execute(statement, [{**one, "of_batch": self._batch_id} for one in some])

    async def _known(self, connection: AsyncConnection, numbers: Iterable[int]) -> set[int]:
        known: set[int] = set()
        for some in chunks(list(numbers)):
            found = sa.select(batch_lines.c.number).where(self._of_line, batch_lines.c.number.in_(some))
            known |= set((await connection.scalars(found)).all())
        return known

    async def _pending(self, connection: AsyncConnection, numbers: Iterable[int]) -> set[int]:
        """Those of *numbers* whose lines are not over. Raises ``NotFound`` for one that there is not."""
        pending: set[int] = set()
        for some in chunks(list(dict.fromkeys(numbers))):
            statement = sa.select(batch_lines.c.number, batch_lines.c.state).where(self._of_line, batch_lines.c.number.in_(some))
            found = {row.number: row.state for row in await connection.execute(statement)}
            if missing := sorted(set(some) - found.keys()):
                raise NotFound(f"the batch {self._batch_id!r} has no line {missing[0]}")
            pending |= {number for number, state in found.items() if state == LineState.PENDING}
        return pending

    async def _kept(self, connection: AsyncConnection, numbers: Iterable[int]) -> dict[CallKey, Usage]:
        """The tokens of every kept call of these lines."""
        kept: dict[CallKey, Usage] = {}
        columns = (batch_calls.c.number, batch_calls.c.position, batch_calls.c.prompt_tokens, batch_calls.c.completion_tokens)
        for some in chunks(list(numbers)):
            found = await connection.execute(sa.select(*columns).where(self._of_call, batch_calls.c.number.in_(some)))
            kept |= {(row.number, row.position): Usage(row.prompt_tokens, row.completion_tokens) for row in found}
        return kept

    async def _add(self, connection: AsyncConnection, usage: Usage | None = None, **more: int) -> None:
        values = {name: batches.c[name] + number for name, number in more.items() if number}
        changes = values | ({} if usage is None else batch_rows.usage_columns(usage))
        if changes:
            await connection.execute(batches.update().where(batches.c.id == self._batch_id).values(changes))

    def _encoded(
        self, made: Mapping[CallKey, KeptCall], ended: Mapping[int, LineResult]
    ) -> tuple[dict[CallKey, dict[str, Any]], dict[int, dict[str, Any]]]:
        rows = {key: batch_rows.call_row(self._batch_id, call) for key, call in made.items() if key[0] not in ended}
        return rows, {number: batch_rows.result_values(result) for number, result in ended.items()}
