"""Calls that a router makes itself, to be told something about the query: who may be asked, for how long, and what came of it."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Any, Protocol

from domain.chat import Message
from domain.deadline import Deadline
from domain.errors import ExpertError, ExpertTimeout
from domain.experts import ExpertCard
from domain.plan import CallRole, Candidate, ExpertCall, ExpertFailure, Outcome
from domain.registry import RegistrySnapshot
from domain.routing import RoutingQuery
from domain.trace_context import ROUTING_SPAN

TIMEOUT_S = 20.0
"""For all calls of one decision. Routing must not eat the request's time: after this it goes on without."""
_MAX_SHARE = 0.5
"""Of the time that the request has left: the other half is for the answer."""


class Completes(Protocol):
    """What runs completions."""

    async def complete(self, call: ExpertCall) -> Candidate: ...


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why the router may not ask the expert that it is to ask; for people who may not know that expert."""

    why: str


def helper(expert_id: str | None, query: RoutingQuery, snapshot: RegistrySnapshot, *, role: str, num_calls: int) -> ExpertCard | Unusable:
    """The expert that the router asks itself as its *role* ("keyword" expert), if the request may call it and has *num_calls* to spare.

    One call of ``query.max_calls`` is left for a candidate.
    """
    expert = snapshot.experts.get(expert_id or "")
    problem = "not registered" if expert is None else query.barred(expert)
    if expert is None or problem is not None:
        # Who may not see an expert is not told its name.
        name = "" if expert is not None and not query.request.access.sees(expert) else f" {expert_id!r}"
        return Unusable(f"the {role} expert{name} is {problem}")
    if query.max_calls is not None and query.max_calls < num_calls + 1:
        calls = f"{num_calls} {role} call{'s' * (num_calls != 1)}"
        return Unusable(f"max_calls is {query.max_calls}, too few for {calls} and an answer")
    return expert


class Asking:
    """Calls of one expert for one decision, which share one limit of time. Each comes to an outcome, a failure as data."""

    def __init__(self, workers: Completes, expert: ExpertCard, query: RoutingQuery, *, timeout_s: float = TIMEOUT_S) -> None:
        self._workers, self._expert, self._request_id = workers, expert, query.request.id
        context = query.request.context
        self._context = None if context is None else context.named_child(ROUTING_SPAN)
        left_s = query.deadline.remaining_s if query.deadline else math.inf
        self._timeout_s = min(timeout_s, _MAX_SHARE * left_s)
        self._deadline = Deadline.after(self._timeout_s)

    async def ask(self, messages: tuple[Message, ...], **params: Any) -> Outcome:
        """What the expert says to *messages*, with *params* over its card's sampling."""
        expert = self._expert
        call = ExpertCall(
            expert, messages, {**expert.sampling, **params}, self._deadline, self._request_id, CallRole.ANNOTATOR, context=self._context
        )
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._deadline.remaining_s):
                return await self._workers.complete(call)
        except ExpertError as error:
            return ExpertFailure(expert.id, error.code, error.message, time.perf_counter() - began)
        except TimeoutError:
            message = f"no answer within {self._timeout_s:.3g} s"
            return ExpertFailure(expert.id, ExpertTimeout.code, message, time.perf_counter() - began)
