"""What a batch would do, without doing it: every line is validated and routed, and the plan is made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from domain.batch import BatchError, BatchOptions, InputLine, LineResult, LineRoute, RoutedLine
from domain.errors import InvalidRequest
from orchestrator.batch.engine import check_chat
from orchestrator.batch.input_file import InputFile
from orchestrator.batch.parts import EngineParts
from orchestrator.batch.plan import BatchPlan
from orchestrator.batch.planning import plan_batch
from orchestrator.batch.ports import DirectShape
from orchestrator.batch.reading import read_lines
from orchestrator.batch.rights import every_right
from orchestrator.batch.routes import RouteTableBuilder
from orchestrator.batch.routing import CallBudget, routed_together
from orchestrator.batch.waves import first_calls
from orchestrator.batch.work import Requests


@dataclass(frozen=True, slots=True)
class Preview:
    """Either ``errors``, for which the batch would be refused, or a plan."""

    errors: tuple[BatchError, ...] = ()
    plan: BatchPlan | None = None
    refused: tuple[tuple[int, str], ...] = ()
    """Lines that would fail before any expert is called, by number, with the reason."""


async def wrong_lines(parts: EngineParts, file: BinaryIO, endpoint: str) -> tuple[BatchError, ...]:
    """What the batch would be refused for; nothing needs to be loaded for it. Raises ``InvalidRequest`` for an *endpoint* that no batch
    can have."""
    return (await _read(parts, file, endpoint))[1]


async def preview(
    parts: EngineParts, file: BinaryIO, endpoint: str, options: BatchOptions, *, on_routed: Callable[[int], None] = lambda _num: None
) -> Preview:
    """Routes as the batch would at this moment, with *parts* whose lines leave no traces; calls no candidate. Of a mode in several
    steps the plan holds what is asked first: nobody knows yet what follows.

    Raises ``InvalidRequest`` for an *endpoint* that no batch can have or that calls no expert.
    """
    shape = parts.shapes.get(endpoint)
    if isinstance(shape, DirectShape):
        raise InvalidRequest(f"{endpoint} calls no expert: there is nothing to plan", param="endpoint")
    lines, errors = await _read(parts, file, endpoint)
    if errors or shape is None:
        return Preview(errors=errors)
    requests = Requests("preview", options, shape, parts.lines, parts.wire_error, rights=every_right())
    builder, budget, refused, source = RouteTableBuilder(), CallBudget(options.max_calls), list[tuple[int, str]](), InputFile(file)
    for start in range(0, len(lines), parts.limits.chunk_lines):
        chunk = [RoutedLine(line) for line in lines[start : start + parts.limits.chunk_lines]]
        bodies = await source.bodies([line.input for line in chunk])
        for number, route in (await routed_together(chunk, bodies, requests, parts.limits)).items():
            match route:
                case LineResult():
                    refused.append((number, str((route.error or {}).get("message", ""))))
                case LineRoute() if not budget.takes(route):
                    refused.append((number, f"the budget of {options.max_calls} calls is spent by the lines before"))
                case LineRoute():
                    builder.add(first_calls(route), route.aggregator if route.waves is None else None)
        on_routed(start + len(chunk))
    table = builder.build()
    plan = await asyncio.to_thread(plan_batch, table, parts.fleet.host(table.expert_ids))
    return Preview(plan=plan, refused=tuple(refused))


async def _read(parts: EngineParts, file: BinaryIO, endpoint: str) -> tuple[list[InputLine], tuple[BatchError, ...]]:
    shape = parts.shapes.get(endpoint)
    check = shape.check if isinstance(shape, DirectShape) else partial(check_chat, shape) if shape is not None else lambda _body: None
    lines: list[InputLine] = []
    errors: list[BatchError] = []
    async for found, wrong in read_lines(file, endpoint, parts.limits, check):
        lines += found
        errors += wrong
    return lines, tuple(errors)
