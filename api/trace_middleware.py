"""The request's span in a distributed trace, from its headers. In use where spans are exported, and only there."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from api.logs import TRACE_ID
from domain.trace_context import TraceContext, begun

CONTEXT = "consilium.context"
"""Key of the scope: the ``TraceContext`` of the request."""


class TraceContextMiddleware:
    """Continues the trace that ``traceparent`` names, or begins one, for what is asked of the data plane."""

    def __init__(self, app: ASGIApp, *, ratio: float) -> None:
        """*ratio*: the share that is kept of requests whose callers do not decide it."""
        self._app, self._ratio = app, ratio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            scope[CONTEXT] = context = self._begun(scope)
            TRACE_ID.set(context.trace_id)
        await self._app(scope, receive, send)

    def _begun(self, scope: Scope) -> TraceContext:
        parents = [bytes(value).decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"]
        states = [bytes(value).decode("latin-1") for name, value in scope["headers"] if name == b"tracestate"]
        # Two of the one contradict each other; of the other several make up one list.
        return begun(parents[0] if len(parents) == 1 else None, ",".join(states), ratio=self._ratio)
