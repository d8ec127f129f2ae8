"""Every change on the admin plane leaves an entry in the audit log: who, when, what, before and after."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.admission import CALLER
from api.auth import SAFE_METHODS, Caller
from api.services import Services
from domain.audit import AuditEntry
from domain.errors import ConsiliumError
from domain.redaction import without_secrets

log = logging.getLogger(__name__)

_PREFIX = "/admin/api/"
_HAVE_BEFORE = frozenset({"PUT", "PATCH", "DELETE"})
_FORGETS = (f"{_PREFIX}traces/", f"{_PREFIX}memory")
"""What is removed here is somebody's conversation: it is removed to be gone, and the log is kept for ever."""
CHANGED_NOTHING = "consilium.changed_nothing"
"""Key of the scope: what might have changed something did not, and leaves no entry."""
MAX_KEPT_BYTES = 65_536
"""Of what was there before, and of what was answered: cards and strategies take a few kilobytes."""


class AuditMiddleware:
    """What changes something is answered when its entry is written. An entry that cannot be written is an error in the log: the change
    has been made by then."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_change = scope["type"] == "http" and scope["method"] not in SAFE_METHODS and scope["path"].startswith(_PREFIX)
        if not is_change:
            await self._app(scope, receive, send)
            return
        has_before = scope["method"] in _HAVE_BEFORE and not scope["path"].startswith(_FORGETS)
        before = await self._read(scope) if has_before else None
        start: Message | None = None
        body = bytearray()

        async def hold(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if len(body) <= MAX_KEPT_BYTES:
                body.extend(message.get("body", b""))
            if start is not None and (len(body) > MAX_KEPT_BYTES or not message.get("more_body", False)):
                begun, start = start, None
                if begun["status"] < 400 and CHANGED_NOTHING not in scope:
                    await _keep(scope, begun["status"], before, _json(bytes(body)))
                await send(begun)
                await send({**message, "body": bytes(body)})
                return
            if start is None:
                await send(message)

        await self._app(scope, receive, hold)

    async def _read(self, scope: Scope) -> Any:
        """What the address holds before the change, as GET tells it; None where it holds nothing."""
        body = bytearray()
        status = 0

        async def nothing() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def collect(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif len(body) <= MAX_KEPT_BYTES:
                body.extend(message.get("body", b""))

        reading = {**scope, "method": "GET", "state": dict(scope.get("state", {}))}
        await self._app(reading, nothing, collect)
        return _json(bytes(body)) if status == 200 else None


async def _keep(scope: Scope, status: int, before: Any, after: Any) -> None:
    caller: Caller = scope[CALLER]
    services: Services = scope["app"].state.services
    entry = AuditEntry(
        id=uuid.uuid4().hex,
        at=time.time(),
        actor=caller.id,
        role=caller.role.value if caller.role is not None else "",
        method=scope["method"],
        path=scope["path"],
        status=status,
        request_id=scope["state"]["request_id"],
        before=without_secrets(before),
        after=without_secrets(after),
    )
    try:
        await services.keys.audit.add(entry)
    except ConsiliumError as error:
        log.error("no audit entry for %s %s by %s: %s", entry.method, entry.path, entry.actor, error)


def _json(body: bytes) -> Any:
    """*body* as JSON; None when it is none, or more than is kept."""
    if not body or len(body) > MAX_KEPT_BYTES:
        return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
