"""The HTTP application: middleware, endpoints, error handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from api import errors
from api.audit_middleware import AuditMiddleware
from api.direct import DirectMiddleware
from api.draining import Drain
from api.endpoints import admin, batches, chat, completions, embeddings, feedback, files, health, memory, metrics, models, route
from api.metrics import Metrics
from api.middleware import (
    AdmissionMiddleware,
    BodyMiddleware,
    ErrorMiddleware,
    HostMiddleware,
    KeyMiddleware,
    LiveMiddleware,
    RequestMiddleware,
)
from api.openapi import describe
from api.services import Services
from api.settings import Settings
from api.trace_middleware import TraceContextMiddleware
from api.ui import router as ui
from api.upload_middleware import UploadMiddleware
from api.version import installed_version

Bootstrap = Callable[[Settings, Metrics], AbstractAsyncContextManager[Services]]

_DIRECT = {
    "/v1/chat/completions": chat.create_chat_completion,
    "/v1/completions": completions.create_completion,
    "/v1/embeddings": embeddings.create_embeddings,
}
_ENDPOINTS = (chat, completions, models, embeddings, files, batches, route, feedback, memory, health, metrics, admin, ui)


class Application(FastAPI):
    """FastAPI inside of *outermost*, whose first middleware is called before anything of FastAPI's is: its own guards, and what it does
    for spans, are three more calls within each other, for every request, and a wrapper around each message of an answer.

    What its own endpoints raise unexpectedly is answered inside of it as well, else its outermost guard would, in plain text.
    """

    def __init__(self, *, outermost: Sequence[Middleware], **settings: Any) -> None:
        super().__init__(middleware=[Middleware(ErrorMiddleware)], **settings)
        stack: ASGIApp = super().__call__
        for made, arguments, named in reversed(outermost):
            stack = made(stack, *arguments, **named)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self._stack(scope, receive, send)


def create_app(
    settings: Settings, *, bootstrap: Bootstrap | None = None, worker: int | None = None, has_stored_keys: bool = False
) -> FastAPI:
    """The service as an ASGI application.

    *bootstrap* makes the parts (``api.bootstrap.bootstrap`` when None); they live from start-up to shutdown in
    ``app.state.services``. *worker* is the process's number among several of one service. Raises ``SettingsError`` when the
    settings would expose the service without keys, unless the database *has_stored_keys*.
    """
    settings.check_exposure(has_stored_keys=has_stored_keys)
    counted, drain = Metrics(worker=worker), Drain()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (bootstrap or _real_bootstrap())(settings, counted) as services:
            app.state.services = services
            yield

    app = Application(
        title="Consilium",
        version=installed_version(),
        description="One OpenAI-compatible endpoint in front of many expert language models, chosen by measured skill.",
        lifespan=lifespan,
        outermost=_middleware(settings, counted, drain),
        # FastAPI's own, for OpenTelemetry: it looks for a provider at each request, and this service sets none up. Its spans are made of
        # finished traces (`api/spans.py`).
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.drain = drain
    for module in _ENDPOINTS:
        app.include_router(module.router)
    errors.install(app)
    describe(app)
    return app


def _real_bootstrap() -> Bootstrap:
    from api.bootstrap import bootstrap  # sees every concrete class, which a test with fakes need not load

    return bootstrap


def _middleware(settings: Settings, counted: Metrics, drain: Drain) -> list[Middleware]:
    """Outermost first."""
    stack = [Middleware(RequestMiddleware, metrics=counted)]
    if settings.otlp_endpoint is not None:
        stack.append(Middleware(TraceContextMiddleware, ratio=settings.otlp_sample_ratio))
    if settings.cors_origin_list:
        stack.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origin_list,
                allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
                allow_headers=["*"],  # clients send some of their own, and none opens anything: cookies are not taken from there
                expose_headers=["*"],
            )
        )
    stack.append(Middleware(ErrorMiddleware))
    if settings.is_loopback:
        stack.append(Middleware(HostMiddleware, also=settings.allowed_host_list))
    stack.append(Middleware(KeyMiddleware))
    stack.append(Middleware(AdmissionMiddleware, max_requests=settings.max_requests, drain=drain))
    stack.append(Middleware(BodyMiddleware, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s))
    stack.append(Middleware(DirectMiddleware, endpoints=_DIRECT))  # what follows is not for what it answers
    stack.append(
        Middleware(
            UploadMiddleware,
            max_file_bytes=settings.max_file_bytes,
            timeout_s=settings.file_timeout_s,
            piece_timeout_s=settings.body_timeout_s,
            origins=settings.cors_origin_list,
        )
    )
    stack.append(Middleware(AuditMiddleware))
    stack.append(Middleware(LiveMiddleware))
    return stack
