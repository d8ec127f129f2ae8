"""A second call for an expert that is silent; whoever answers first is heard (Dean and Barroso, "The Tail at Scale", 2013)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from domain.chat import Chunk
from domain.experts import Backend, ExpertCard, HealthState
from domain.plan import Candidate, ExpertCall, ExpertFailure, Outcome
from orchestrator.limits import Limits
from orchestrator.modes.relay import Relay
from orchestrator.modes.single import Single
from orchestrator.planner import candidate_calls
from orchestrator.ports import Directory, Load
from orchestrator.preparation import Prepared
from orchestrator.stand_ins import decided_for, fitting

TaskT = TypeVar("TaskT", bound=asyncio.Task[Any])


@dataclass(frozen=True, slots=True)
class Second:
    """The call that is made beside a silent one."""

    call: ExpertCall
    why: str
    """Why it was made, where it answers first."""
    prepared: Prepared
    """What is carried out then."""


@dataclass(frozen=True, slots=True)
class Hedge:
    """What is done about silence."""

    after_s: float
    second: Callable[[ExpertCall], Second | None]
    """Whom to ask beside the call that is silent, chosen and granted when the time has come; None when nobody may be asked. Asked once."""


class Hedging:
    """Whether a request may make a second call. Of one process: it counts how many are made.

    A strategy's ``hedge_after_s`` asks the next best expert, a card's the same one again, which is for an address with several servers
    behind it. It is never done for modes of several calls, which ask several anyway; where the request's budget has no room for two, or
    the call must not be made twice; to an expert that is not healthy, has no free place, or whose server might have to be loaded; nor more
    often than ``Limits.hedge_share`` of the requests.
    """

    def __init__(self, directory: Directory, load: Load | None, limits: Limits) -> None:
        self._directory, self._load, self._limits = directory, load, limits
        self._saved = limits.hedge_burst

    def of(self, prepared: Prepared) -> Hedge | None:
        """What is done when the only call of *prepared* meets silence; None: nothing. To be asked once for each request."""
        self._saved = min(self._limits.hedge_burst, self._saved + self._limits.hedge_share)
        mode = prepared.mode
        if not isinstance(mode, Single):
            return None
        by_strategy = prepared.context.strategy.hedge_after_s
        after_s = mode.call.expert.hedge_after_s if by_strategy is None else by_strategy
        if after_s is None or prepared.ledger.num_left < 2 or not mode.call.is_repeatable:
            return None
        return Hedge(after_s, partial(self._second, prepared, mode.call, after_s, by_strategy is not None))

    def _second(self, prepared: Prepared, planned: ExpertCall, after_s: float, is_other: bool, silent: ExpertCall) -> Second | None:
        """*silent* is *planned* as it was granted."""
        if self._saved < 1.0:
            return None
        first = planned.expert
        others = fitting(prepared, without={first.id}) if is_other else iter((first,))
        card = next(filter(self._may_ask, others), None)
        if card is None:
            return None
        told = f"{first.id} had said nothing for {after_s:g} s"
        if is_other:
            told = f"{told}, so the next best was asked as well, {card.id}, which answered first"
            context = replace(prepared.context, decision=decided_for(prepared, card, f"Note: {told}."))
            (call,) = candidate_calls(context, context.decision, max_calls=1)
        else:
            told = f"{told}, so it was asked a second time, and answered"
            context, call = prepared.context, planned
        (granted,) = prepared.ledger.grant([call], beside=[silent])
        if isinstance(granted, ExpertFailure):
            return None
        self._saved -= 1.0
        return Second(granted, told, replace(prepared, context=context, mode=Single(granted, told)))

    def _may_ask(self, card: ExpertCard) -> bool:
        """Whether one call more does no harm."""
        load = self._load
        is_free = load is None or (load.in_flight(card.id) < card.max_in_flight and not load.manages(card))
        return is_free and card.backend is not Backend.VLLM and self._directory.health_of(card.id) is HealthState.CLOSED


@dataclass(frozen=True, slots=True)
class Raced:
    """What a call and the second one came to."""

    calls: list[ExpertCall]
    outcomes: list[Outcome]
    """The answer that came first, else every failure."""
    second: Second | None = None
    """Where the answer is its."""


async def raced(call: ExpertCall, hedge: Hedge, run: Callable[[ExpertCall], Coroutine[Any, Any, list[Outcome]]]) -> Raced:
    """*call*, and where it is silent a second one; *run* makes one call.

    A call that fails is waited for no longer; the one that is late is cancelled.
    """
    running: dict[asyncio.Task[list[Outcome]], tuple[ExpertCall, Second | None]] = {asyncio.create_task(run(call)): (call, None)}
    failed = Raced([], [])
    try:
        await _silence(running, hedge.after_s)
        if _is_silent(running) and (second := hedge.second(call)) is not None:
            running[asyncio.create_task(run(second.call))] = (second.call, second)
        while running:
            task = await _first_done(running)
            asked, by_second = running.pop(task)
            (outcome,) = task.result()
            if isinstance(outcome, Candidate):
                return Raced([asked], [outcome], by_second)
            failed.calls.append(asked)
            failed.outcomes.append(outcome)
        return failed
    finally:
        await _stop(running)


@dataclass(frozen=True, slots=True)
class _Begun:
    relay: Relay
    chunks: AsyncGenerator[Chunk, None]
    second: Second | None


class HedgedRelay:
    """Iterate ``chunks``: those of *call*, or of the second one where that says something first, which *on_second* hears before.
    Afterwards ``outcomes`` is what came of who was heard, else every failure, of ``calls``."""

    def __init__(
        self, call: ExpertCall, hedge: Hedge, relay_of: Callable[[ExpertCall], Relay], *, on_second: Callable[[Second], None]
    ) -> None:
        self._call, self._hedge, self._relay_of, self._on_second = call, hedge, relay_of, on_second
        self.has_begun = False
        """Whether anybody is heard."""
        self.calls: list[ExpertCall] = []
        self.outcomes: list[Outcome] = []

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        running: dict[asyncio.Task[list[Chunk]], _Begun] = {}
        try:
            self._begin(running, self._call)
            await _silence(running, self._hedge.after_s)
            if _is_silent(running) and (second := self._hedge.second(self._call)) is not None:
                self._begin(running, second.call, second)
            while running:
                task = await _first_done(running)
                begun = running.pop(task)
                try:
                    beginning = task.result()
                    if any(isinstance(outcome, ExpertFailure) for outcome in begun.relay.outcomes):
                        self.calls += begun.relay.calls
                        self.outcomes += begun.relay.outcomes
                        continue
                    await _close(running)
                    self.has_begun, self.calls, self.outcomes = True, begun.relay.calls, begun.relay.outcomes
                    if begun.second is not None:
                        self._on_second(begun.second)
                    for chunk in beginning:
                        yield chunk
                    async for chunk in begun.chunks:
                        yield chunk
                finally:
                    await begun.chunks.aclose()
        finally:
            await _close(running)

    def _begin(self, running: dict[asyncio.Task[list[Chunk]], _Begun], call: ExpertCall, second: Second | None = None) -> None:
        relay = self._relay_of(call)
        chunks = relay.chunks()
        running[asyncio.create_task(_beginning(chunks))] = _Begun(relay, chunks, second)


async def _beginning(chunks: AsyncGenerator[Chunk, None]) -> list[Chunk]:
    """The first of *chunks*: workers give none before the expert has said something."""
    try:
        return [await anext(chunks)]
    except StopAsyncIteration:
        return []


async def _silence(running: Mapping[TaskT, object], seconds: float) -> None:
    await asyncio.wait(running, timeout=seconds)


def _is_silent(running: Mapping[TaskT, object]) -> bool:
    return not any(task.done() for task in running)


async def _first_done(running: Mapping[TaskT, object]) -> TaskT:
    """Of several that are done, the one that began first."""
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    return next(task for task in running if task.done())


async def _stop(running: Mapping[TaskT, object]) -> None:
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def _close(running: dict[asyncio.Task[list[Chunk]], _Begun]) -> None:
    """End the calls of *running*, which is empty afterwards."""
    given_up = list(running.values())
    await _stop(running)
    running.clear()
    for begun in given_up:
        await begun.chunks.aclose()
