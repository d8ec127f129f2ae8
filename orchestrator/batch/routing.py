"""Route every line of a batch before any is run, and remember it."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from domain.batch import BatchErrorCode, BatchOptions, LineResult, LineRoute, RoutedLine
from domain.errors import ConsiliumError, NotReady, Overloaded, StorageError
from orchestrator.batch.input_file import Body, InputFile
from orchestrator.batch.ledger import Ledger
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.ports import BatchJournal
from orchestrator.batch.routes import RouteTableBuilder
from orchestrator.batch.waves import num_calls
from orchestrator.batch.work import Requests

_NOT_THE_LINES = (NotReady, StorageError, Overloaded)
"""What says nothing about the line: it waits, and is tried again."""
_FIRST_PAUSE_S = 0.1
"""Before the second attempt. Ten times as long before each further one."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Routed:
    """Every line that is to be run."""

    builder: RouteTableBuilder
    """Has the lines whose calls are all known."""
    numbers: array[int]
    """(lines) of each of these in the input file."""
    cascades: array[int]
    """Numbers of the lines that ask one expert after the other."""


async def route_all(
    *,
    requests: Requests,
    file: InputFile,
    journal: BatchJournal,
    ledger: Ledger,
    limits: BatchLimits,
    options: BatchOptions,
    on_routed: Callable[[int], None],
) -> Routed:
    """Route what is not routed yet; the calls of all lines that are not over.

    A line that cannot be routed fails as a request alone would have. A line that would take the batch over its ``max_calls``
    fails too, before anything is spent on it: calls are counted line by line, in the input's order.
    """
    builder, numbers, cascades, budget = RouteTableBuilder(), array("I"), array("I"), CallBudget(options.max_calls)
    num_routed = 0
    async for chunk in chunks(journal.pending(), limits.chunk_lines):
        todo = [line for line in chunk if line.route is None]
        bodies = await file.bodies([line.input for line in todo])
        found = await routed_together(todo, bodies, requests, limits)
        if routes := [(number, route) for number, route in found.items() if isinstance(route, LineRoute)]:
            await journal.keep_routes(routes)
            ledger.count_calls(sum(route.num_router_calls for _, route in routes))
        for line in chunk:
            number = line.input.line.number
            route = line.route or found[number]
            if isinstance(route, LineRoute) and not budget.takes(route):
                message = f"the batch may make {options.max_calls} calls, and the lines before this one need them"
                route = requests.not_run(number, BatchErrorCode.BUDGET, message)
            if isinstance(route, LineResult):
                await ledger.line_ended(route)
                continue
            if route.waves is not None:
                cascades.append(number)
                continue
            builder.add(route.selected, route.aggregator)
            numbers.append(number)
        num_routed += len(chunk)
        on_routed(num_routed)
    await ledger.flush()
    return Routed(builder, numbers, cascades)


class CallBudget:
    """Calls that the lines so far lead to."""

    def __init__(self, max_calls: int | None) -> None:
        self._left = max_calls

    def takes(self, route: LineRoute) -> bool:
        """Whether the line's calls are within it; they are taken off when they are."""
        needed = route.num_router_calls + num_calls(route)
        if self._left is None:
            return True
        if needed > self._left:
            return False
        self._left -= needed
        return True


async def routed_together(
    lines: list[RoutedLine], bodies: list[Body], requests: Requests, limits: BatchLimits
) -> dict[int, LineRoute | LineResult]:
    """By number, who answers each line or what it fails with. Several at once, so that the encoder gets batches."""
    places = asyncio.Semaphore(limits.route_at_once)

    async def one(line: RoutedLine, body: Body) -> tuple[int, LineRoute | LineResult]:
        async with places:
            number = line.input.line.number
            return number, await _route(number, body, requests, limits)

    tasks = [asyncio.create_task(one(line, body)) for line, body in zip(lines, bodies, strict=True)]
    try:
        return dict(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _route(number: int, body: Body, requests: Requests, limits: BatchLimits) -> LineRoute | LineResult:
    try:
        return await tried(lambda: requests.lines.route(requests.request(number, body)), limits)
    except ConsiliumError as error:
        return requests.refusal(number, error)


async def tried(attempt: Callable[[], Awaitable[T]], limits: BatchLimits) -> T:
    """What *attempt* comes to, made again while the service itself is what is not able. Raises what the last one raised."""
    pause_s = _FIRST_PAUSE_S
    for _ in range(limits.max_attempts - 1):
        try:
            return await attempt()
        except _NOT_THE_LINES:
            await asyncio.sleep(pause_s)
            pause_s *= 10
    return await attempt()


async def chunks(lines: AsyncIterator[RoutedLine], size: int) -> AsyncIterator[list[RoutedLine]]:
    """*lines* in lists of *size*, the last one shorter."""
    chunk: list[RoutedLine] = []
    async for line in lines:
        chunk.append(line)
        if len(chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
