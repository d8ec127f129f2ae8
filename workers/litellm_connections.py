"""LiteLLM's connections, held to where experts may be called and to how long connecting may take.

LiteLLM makes its own; what a name means is only certain when one is made. Its aiohttp transport, which is what it uses unless
``DISABLE_AIOHTTP_TRANSPORT`` is set, asks a function of its module for what makes sockets: that is where each address is looked at,
redirects and names that suddenly mean another address included. The same module makes its connectors: LiteLLM knows one time for a whole
call, which it also gives to connecting. Tests hold both against the installed version.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import ClientTimeout, TCPConnector

from workers.addresses import AddressPolicy, AddressRefused

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.tracing import Trace

SocketFactory = Callable[[Any], socket.socket]


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """What connections are held to."""

    addresses: AddressPolicy
    connect_timeout_s: float
    """For finding the address, connecting to it and TLS together."""


_bounds: ContextVar[ConnectionBounds | None] = ContextVar("litellm_connections", default=None)
"""Of the call that runs: connections are made in its context."""
_BUILD = "build_aiohttp_keepalive_socket_factory"
_CONNECTOR = "TCPConnector"
_GUARDS = "_consilium_guards"


@contextmanager
def held_to(bounds: ConnectionBounds) -> Iterator[None]:
    """Connections that LiteLLM makes in the block are held to *bounds*."""
    token = _bounds.set(bounds)
    try:
        yield
    finally:
        _bounds.reset(token)


class BoundedConnector(TCPConnector):
    """Gives up connecting in time. Waiting for one of the connector's places is not connecting, and not counted."""

    async def _create_connection(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> ResponseHandler:  # noqa: ASYNC109
        bounds = _bounds.get()
        # What ends here is told as aiohttp's ConnectionTimeoutError by its session.
        async with asyncio.timeout(None if bounds is None else bounds.connect_timeout_s):
            return await super()._create_connection(req, traces, timeout)


def guard_connections() -> None:
    """Have LiteLLM ask before it connects, and connect in time. Importing it takes seconds; to be called once it is imported."""
    from litellm.llms.custom_httpx import http_handler

    setattr(http_handler, _CONNECTOR, BoundedConnector)
    build: Callable[[], SocketFactory | None] = getattr(http_handler, _BUILD)
    if hasattr(build, _GUARDS):
        return

    def guarded() -> SocketFactory:
        make = build() or _socket

        def factory(info: Any) -> socket.socket:
            bounds = _bounds.get()
            if bounds is not None and (why := bounds.addresses.obstacle(str(info[4][0]))):
                raise AddressRefused(errno.EACCES, why)
            return make(info)

        return factory

    setattr(guarded, _GUARDS, True)
    setattr(http_handler, _BUILD, guarded)


def _socket(info: Any) -> socket.socket:
    family, kind, protocol, *_ = info
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    return made
