"""Cascades and other modes of several steps in a batch: what is asked next depends on what was answered before, so their calls come in
waves.

Each wave is a plan of its own, for all lines together: the first holds every other line's calls too. What a line asks next follows
from its calls that are kept, and from nothing else, so a batch that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from domain.batch import LineRoute
from domain.errors import RequestError
from orchestrator.batch.input_file import InputFile
from orchestrator.batch.ledger import Ledger, patiently
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.ports import BatchJournal
from orchestrator.batch.work import LineRequest, NextCalls, Requests


async def advance(
    numbers: Sequence[int],
    *,
    known: NextCalls | None = None,
    requests: Requests,
    file: InputFile,
    journal: BatchJournal,
    ledger: Ledger,
    limits: BatchLimits,
) -> NextCalls:
    """The next calls of the lines with these numbers, as far as they are not *known*. Those that have none left get their result; so do
    those that cannot be carried out any more."""
    found = {number: known[number] for number in numbers if number in known} if known else {}
    await ledger.flush()  # kept calls are read back
    for some in _chunks([number for number in numbers if number not in found], limits.chunk_lines):
        stored = await patiently(partial(journal.lines, some), limits)
        outcomes = await patiently(partial(journal.calls, some), limits)
        lines = list(stored.values())
        for line, body in zip(lines, await file.bodies([line.input for line in lines]), strict=True):
            number, route = line.input.line.number, line.route
            if not isinstance(route, LineRoute):
                continue
            try:
                asked = LineRequest(number, body, requests.request(number, body), route)
                calls = await requests.lines.asked_next(asked.request, route, outcomes.get(number, {}))
            except RequestError as error:
                await ledger.line_ended(requests.refusal(number, error))
                continue
            if calls:
                found[number] = calls
            else:
                await ledger.line_ended(requests.result(asked, outcomes.get(number, {})))
    return found


def num_calls(route: LineRoute) -> int:
    """Calls that a line's experts may take, its router's apart."""
    if route.waves is not None:
        return route.waves.max_calls
    return len(route.selected) + (route.aggregator is not None)


def first_calls(route: LineRoute) -> tuple[str, ...]:
    """The experts that a line asks at once, whatever comes of it."""
    return route.selected if route.waves is None else route.waves.first


def _chunks(numbers: Sequence[int], size: int) -> Iterable[list[int]]:
    return (list(numbers[start : start + size]) for start in range(0, len(numbers), size))
