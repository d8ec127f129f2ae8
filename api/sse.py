"""Server-sent events: frames, and a response that ends its work when the reader goes away."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.disconnect import ClientGone, while_connected
from api.errors import to_wire
from api.logs import without_words
from domain.errors import ConsiliumError
from domain.patience import Patience

log = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"


def data(payload: object) -> bytes:
    """One event with a JSON value."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def comment(text: str) -> bytes:
    """A line that parsers skip: keeps the connection alive and tells people what goes on."""
    return b": " + " ".join(text.split()).encode() + b"\n\n"


def error_event(error: BaseException) -> bytes:
    """What ends a stream that has begun: an event named ``error`` with OpenAI's error object."""
    return b"event: error\n" + data(to_wire(error).body)


class EventStream(Response):
    """Sends *frames* as they come.

    *close* is awaited in every case: at the end, when the reader goes away or stops reading for *send_timeout_s*, and when the
    server shuts down. (Closing the generator would not do: one that was never started runs no ``finally``.) An error that
    *frames* raises becomes an ``error`` event, the last one.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        close: Callable[[], Awaitable[None]],
        headers: Mapping[str, str],
        send_timeout_s: float,
    ) -> None:
        self._frames = frames
        self._close = close
        self._send_timeout_s = send_timeout_s
        self.status_code = 200
        self.background = None
        # Proxies that buffer (nginx) would hold tokens back; caches have no business here.
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no", **headers})

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        given = {"content-type": "text/event-stream; charset=utf-8", **(headers or {})}
        self.raw_headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(scope, receive, self._write(send))
        except ClientGone:
            log.debug("stream given up: its reader went away")
        finally:
            await self._frames.aclose()
            await self._close()

    async def _write(self, send: Send) -> None:
        patience = Patience()
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while (frame := await self._next()) is not None:
                with patience.for_(self._send_timeout_s):
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (OSError, TimeoutError) as error:  # the reader is gone, or has stopped reading
            log.debug("stream given up: %s", type(error).__name__)
        finally:
            patience.close()

    async def _next(self) -> bytes | None:
        """The next frame, an error as a frame, or None at the end."""
        try:
            return await anext(self._frames)
        except StopAsyncIteration:
            return None
        except ConsiliumError as error:
            log.warning("stream ended early: %s", without_words(error))
            log.debug("stream ended early: %s", error)
            return error_event(error)
        except Exception as error:  # the reader has to hear that the answer is not complete
            log.exception("stream broke")
            return error_event(error)
