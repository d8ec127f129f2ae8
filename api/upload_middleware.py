"""The endpoints whose body is a form and too large for memory: their bounds, and who may send it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import WireError, wire_body
from domain.errors import Forbidden, InvalidRequest, PayloadTooLarge

UPLOAD_PATHS = frozenset({"/v1/files", "/admin/batches/upload"})
"""The API's, and that of the page, which asks for a session and its token besides."""
FORM = "multipart/form-data"
FORM_BYTES = 65_536
"""Room for what is not the file: boundaries, heads and the other fields take some hundred bytes."""


class UploadMiddleware:
    """Lets a form through to ``UPLOAD_PATHS`` alone, as it comes, within a size, a time for all of it and one for each piece.

    Everything else has to be JSON, which a web page cannot send elsewhere without asking first. A form it can. So a form that a
    browser sends is taken from the service's own pages only: browsers tell where a page is from (``Sec-Fetch-Site``, or ``Origin``
    in old ones), and no other program does.
    """

    def __init__(
        self, app: ASGIApp, *, max_file_bytes: int, timeout_s: float, piece_timeout_s: float, origins: Collection[str] = ()
    ) -> None:
        self._app, self._max_bytes = app, max_file_bytes + FORM_BYTES
        self._origins = frozenset(origins)
        self._max_file_bytes, self._timeout_s, self._piece_timeout_s = max_file_bytes, timeout_s, piece_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_upload(scope):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if headers.get("origin") not in self._origins:
            refuse_other_sites(headers)
        kind = headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != FORM:
            message = f"the content type {kind!r} is not supported here: send {FORM} with the parts 'purpose' and 'file'"
            await WireError(415, wire_body(415, message, "unsupported_media_type")).response()(scope, receive, send)
            return
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._max_bytes:
            raise self._too_large()
        await self._app(scope, self._bounded(receive), send)

    def _bounded(self, receive: Receive) -> Receive:
        loop = asyncio.get_running_loop()
        ends, num_bytes, is_complete = loop.time() + self._timeout_s, 0, False

        async def bounded() -> Message:
            nonlocal num_bytes, is_complete
            if is_complete:
                return await receive()  # from here on: only "the caller went away"
            try:
                async with asyncio.timeout_at(min(ends, loop.time() + self._piece_timeout_s)):
                    message = await receive()
            except TimeoutError:
                if loop.time() < ends:
                    raise InvalidRequest(f"nothing of the file arrived for {self._piece_timeout_s:g} s: send it again") from None
                raise InvalidRequest(f"the file did not arrive within {self._timeout_s:g} s (CONSILIUM_FILE_TIMEOUT_S)") from None
            num_bytes += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if num_bytes > self._max_bytes:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"the file is larger than {self._max_file_bytes:,} bytes (CONSILIUM_MAX_FILE_BYTES): make several of it", param="file"
        )


def is_upload(scope: Scope) -> bool:
    """Whether the request's body is a form that is read in pieces."""
    return scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in UPLOAD_PATHS


def refuse_other_sites(headers: Headers, doing: str = "upload files") -> None:
    """Raise ``Forbidden`` when a browser says that a page of another site sends this. Programs say nothing, and are let through."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        is_own = site.lower() in {"same-origin", "none"}
    else:
        is_own = origin is None or _host_of(origin) == headers.get("host", "").lower()
    if not is_own:
        raise Forbidden(f"a page of {origin or 'another site'} may not {doing} here: do it from a program, or from this host")


def _host_of(origin: str) -> str | None:
    """With its port; None when it is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
