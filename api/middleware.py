"""Pure ASGI middleware: what holds for every request, before any endpoint is chosen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Iterable
from functools import lru_cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.admission import CALLER, LIMIT_HEADERS
from api.auth import SAFE_METHODS, Auth, needed_role
from api.body import BODY, header_of
from api.connection import connection_of
from api.disconnect import ClientGone
from api.draining import ADMITTED, Drain
from api.errors import WireError, to_wire, wire_body
from api.logs import REQUEST_ID
from api.metrics import Metrics
from api.services import Services
from api.upload_middleware import is_upload
from domain.errors import ConsiliumError, Forbidden, InvalidRequest, Overloaded, PayloadTooLarge, Unauthenticated
from domain.random_ids import ordered_id

log = logging.getLogger(__name__)

_STATUS = "consilium.status"
"""Key of the scope: the answer's status, once its head has gone out."""
_SANE_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_MAX_HOSTS = 256
"""Values of ``Host`` that are remembered: every request of a caller brings the same."""
_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
ADMIN_API = "/admin/api/"
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
_CHANGING_METHODS = _BODY_METHODS | {"DELETE"}
_ASKED = _CHANGING_METHODS | {"GET", "HEAD"}
"""Methods of requests that a key is asked for."""
NEW_KEY_WITHIN_S = 2.0
"""Longest that a request with an unknown key waits until the database was asked for it."""
MAX_NEW_KEYS = 128
"""Requests that wait so at once; they are not counted among those that are served."""
LIVE_WITHIN_S = 5.0
"""Longest that the answer to a change waits for routing to follow; a new expert takes a tenth of a second, hundreds of new
questions take longer than anybody should wait for an answer."""


class RequestMiddleware:
    """Outermost: the request's id, and counting.

    ``x-request-id`` of the caller is kept when it is sane (letters, digits, ``._:-``, at most 128), else one is made.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = header_of(scope, b"x-request-id")
        request_id = given if given is not None and _SANE_ID.fullmatch(given) else ordered_id()
        scope.setdefault("state", {})["request_id"] = request_id
        REQUEST_ID.set(request_id)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status, headers = message["status"], message.setdefault("headers", [])
                scope[_STATUS] = status
                for name, _ in headers:
                    if name == b"x-request-id":
                        break
                else:
                    message["headers"] = [*headers, (b"x-request-id", request_id.encode()), *scope.get(LIMIT_HEADERS, ())]
            await send(message)

        started = time.perf_counter()
        self._metrics.num_in_flight += 1
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._metrics.num_in_flight -= 1
            route = getattr(scope.get("route"), "path", None)
            # Counted when the answer is on its way, as its trace is (``api.after_answer``).
            asyncio.get_running_loop().call_soon(self._metrics.count_http, scope["method"], route, status or 499)
            if log.isEnabledFor(logging.DEBUG):
                took_ms = (time.perf_counter() - started) * 1e3
                log.debug("%s %s %s %.1f ms %s", scope["method"], scope["path"], status, took_ms, request_id)


class ErrorMiddleware:
    """The last guard: what is raised further in becomes an answer here, inside of what adds headers to answers for web pages; without
    those a page cannot read why it was refused."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except ConsiliumError as error:  # from a middleware further in
            if _STATUS not in scope:
                await to_wire(error).response()(scope, receive, send)
        except ClientGone:
            log.debug("%s %s: the caller went away, request %s", scope["method"], scope["path"], scope["state"]["request_id"])
        except Exception as error:  # the service has to stay up and the caller has to hear; the log has the trace
            log.exception("%s %s failed, request %s", scope["method"], scope["path"], scope["state"]["request_id"])
            if _STATUS in scope:
                raise
            await to_wire(error).response()(scope, receive, send)


class HostMiddleware:
    """On a loopback service only loopback names may stand in ``Host``: a web page that re-binds its own name to 127.0.0.1
    would otherwise be same-origin with the service."""

    def __init__(self, app: ASGIApp, *, also: Iterable[str] = ()) -> None:
        self._app = app
        self._names = _LOOPBACK_NAMES | {name.lower() for name in also}
        self._known = lru_cache(maxsize=_MAX_HOSTS)(self._is_served)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = header_of(scope, b"host") or ""
            if not self._known(host):
                raise Forbidden(f"the host name {_name_in(host)!r} is not served here: use localhost, or add it to CONSILIUM_ALLOWED_HOSTS")
        await self._app(scope, receive, send)

    def _is_served(self, host: str) -> bool:
        name = _name_in(host)
        return name in self._names or name.endswith(".localhost")


def _name_in(host: str) -> str:
    """The name, in small letters, in the header ``Host``."""
    host = host.lower()
    return host if host.endswith("]") else host.rpartition(":")[0] or host


class KeyMiddleware:
    """Asks for the key before a body is read: who has none must not fill the memory. The endpoints ask again, whatever the method.

    A key that nobody knows may have been made a moment ago, by another process of the service: that is looked for before it is refused. Of
    those who come with such keys at most ``MAX_NEW_KEYS`` wait for it.
    """

    _num_waiting = 0

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in _ASKED and scope["path"].startswith(("/v1/", ADMIN_API)):
            services: Services = scope["app"].state.services
            try:
                _admit(scope, services.auth)
            except Unauthenticated:
                if services.auth.is_news(header_of(scope, b"authorization")) and self._num_waiting < MAX_NEW_KEYS:
                    await self._look(services)
                if scope["method"] in _CHANGING_METHODS:  # others have no body, and may ask for what there is not, which is told first
                    _admit(scope, services.auth)
        await self._app(scope, receive, send)

    async def _look(self, services: Services) -> None:
        self._num_waiting += 1
        try:
            async with asyncio.timeout(NEW_KEY_WITHIN_S):
                await services.directory.look_again()
        except TimeoutError:
            log.debug("the database was not asked for a new key within %g s", NEW_KEY_WITHIN_S)
        finally:
            self._num_waiting -= 1


def _admit(scope: Scope, auth: Auth) -> None:
    """Who asks, kept in *scope*. Raises ``Unauthenticated`` or ``Forbidden``."""
    given, method, path = header_of(scope, b"authorization"), scope["method"], scope["path"]
    scope[CALLER] = auth.require_admin(given, needed_role(method, path)) if path.startswith(ADMIN_API) else auth.require_data(given)


class BodyMiddleware:
    """Reads the body within a size and a time, before anything is parsed; a body has to say that it is JSON.

    The content type is a safety rule too: a web page cannot send ``application/json`` elsewhere without asking first. Uploads of
    files have their own bounds and their own rule (``api.upload_middleware``); pages of the admin UI take forms, each with a token
    that no other site knows (``api.ui.visit``).
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _BODY_METHODS or is_upload(scope):  # which ``UploadMiddleware`` bounds
            await self._app(scope, receive, send)
            return
        declared = header_of(scope, b"content-length") or ""
        if declared.isdigit() and int(declared) > self._max_bytes:
            raise self._too_large()
        connection = connection_of(scope)
        if connection is not None and connection.has_whole_body:  # so it is nearly always, and a timer is not free
            body = await self._read(receive)
        else:
            try:
                async with asyncio.timeout(self._timeout_s):
                    body = await self._read(receive)
            except TimeoutError:
                raise InvalidRequest(f"the body did not arrive within {self._timeout_s:g} s") from None
        if body is None:
            return  # the caller went away while sending
        kind = header_of(scope, b"content-type") or ""
        if body and kind != _JSON and not _is_json(kind) and not (_is_form(kind) and is_page(scope["path"])):
            message = f"the content type {kind!r} is not supported: send application/json"
            await WireError(415, wire_body(415, message, "unsupported_media_type")).response()(scope, receive, send)
            return
        scope[BODY] = body
        delivered = False

        async def replay() -> Message:
            nonlocal delivered
            if delivered:
                return await receive()  # from here on: only "the caller went away"
            delivered = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece = message.get("body", b"")
            size += len(piece)
            if size > self._max_bytes:
                raise self._too_large()
            pieces.append(piece)
            if not message.get("more_body", False):
                return b"".join(pieces)

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"the body is larger than {self._max_bytes} bytes (CONSILIUM_MAX_BODY_BYTES)")


class AdmissionMiddleware:
    """At most so many requests of the data plane, or with a body, at once; one more is told to come back (429) instead of
    waiting unseen. While the process is about to end, none (503)."""

    def __init__(self, app: ASGIApp, *, max_requests: int, drain: Drain) -> None:
        self._app = app
        self._max_requests = max_requests
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_counted = scope["type"] == "http" and (scope["path"].startswith("/v1/") or scope["method"] in _BODY_METHODS)
        if not is_counted or ADMITTED in scope:
            await self._app(scope, receive, send)
            return
        if self._drain.num_running >= self._max_requests:
            raise Overloaded(f"{self._max_requests} requests are being served already (CONSILIUM_MAX_REQUESTS)", retry_after_s=1.0)
        self._drain.enter()
        try:
            await self._app(scope, receive, send)
        finally:
            self._drain.leave()


class LiveMiddleware:
    """Holds back the answer to a change on the admin plane until routing has followed it, for at most ``LIVE_WITHIN_S``:
    who has added an expert asks it next."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS or not scope["path"].startswith(ADMIN_API):
            await self._app(scope, receive, send)
            return

        async def send_when_live(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                await self._until_live(scope["app"].state.services)
            await send(message)

        await self._app(scope, receive, send_when_live)

    async def _until_live(self, services: Services) -> None:
        if not services.readiness.is_done("index"):
            return  # nothing is routed yet, or, in a command's own process, ever
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIVE_WITHIN_S):
                await services.index_holder.follows(services.directory.snapshot().version)


def is_page(path: str) -> bool:
    """Whether the admin UI answers at *path*."""
    return path.startswith("/admin/") and not path.startswith(ADMIN_API)


def _is_form(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == _FORM


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
