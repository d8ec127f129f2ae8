"""How a request of the data plane comes in: who asks, with which rights, and within which limits."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType

from fastapi import Request

from api.auth import ANYBODY, Caller
from api.services import Services
from api.trace_middleware import CONTEXT
from domain.chat import ChatRequest
from domain.spending import Spent
from orchestrator.admission.gate import Grant, Refused

CALLER = "consilium.caller"
"""Key of the scope: who asks, once that was found out."""
LIMIT_HEADERS = "consilium.limits"
"""Key of the scope: ``x-ratelimit-*`` for the answer, whatever it becomes."""


class Held:
    """What a request has taken of its key's limits. Given back when the block fails; else the request's trace settles it."""

    __slots__ = ("_grant",)

    def __init__(self, grant: Grant | None) -> None:
        self._grant = grant

    def __enter__(self) -> Held:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None and self._grant is not None:
            self._grant.close()

    def spent(self, tokens: int) -> None:
        """The request is over, and no trace will tell."""
        if self._grant is not None:
            self._grant.spent(Spent(tokens))


_FREE = Held(None)


def caller_of(request: Request) -> Caller:
    """Who asks, as the middleware or the endpoint's dependency has found out."""
    caller: Caller = request.scope.get(CALLER, ANYBODY)
    return caller


def of_caller(request: Request, asked: ChatRequest) -> ChatRequest:
    """*asked* with the rights of who asks, as a span of the trace that it came with."""
    caller, context = caller_of(request), request.scope.get(CONTEXT)
    if caller is ANYBODY:
        return asked if context is None else replace(asked, context=context)
    key = caller.key
    return replace(asked, access=caller.access, key_id=key.id if key is not None else None, context=context)


async def admitted(request: Request, services: Services, asked: ChatRequest) -> tuple[ChatRequest, Held]:
    """*asked*, and what it has taken of its key's limits, which its trace will settle. Raises ``LimitReached`` and what looking limits up
    raises."""
    key = caller_of(request).key
    if key is None or key.limits.are_none:
        return asked, _FREE
    try:
        grant = await services.keys.gate.admit(key, asked, services.directory.snapshot())
    except Refused as refused:
        request.scope[LIMIT_HEADERS] = refused.headers
        raise refused.error from None
    if grant is None:
        return asked, _FREE
    request.scope[LIMIT_HEADERS] = grant.headers
    return replace(asked, on_trace=grant.settled), Held(grant)


async def admitted_for(request: Request, services: Services, num_tokens: int) -> Held:
    """The same for a request that is no chat and will use so many tokens."""
    key = caller_of(request).key
    if key is None or key.limits.are_none:
        return _FREE
    try:
        grant = await services.keys.gate.take(key, Spent(num_tokens))
    except Refused as refused:
        request.scope[LIMIT_HEADERS] = refused.headers
        raise refused.error from None
    if grant is None:
        return _FREE
    request.scope[LIMIT_HEADERS] = grant.headers
    return Held(grant)
