"""LiteLLM's connections, held to where experts may be called.

LiteLLM makes its own; what a name means is only certain when one is made. Its aiohttp transport, which is what it uses unless
``DISABLE_AIOHTTP_TRANSPORT`` is set, asks a function of its module for what makes sockets: that is where each address is looked at,
redirects and names that suddenly mean another address included. A test holds this against the installed version.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from workers.addresses import AddressPolicy, AddressRefused

SocketFactory = Callable[[Any], socket.socket]

_policy: ContextVar[AddressPolicy | None] = ContextVar("litellm_addresses", default=None)
"""Of the call that runs: connections are made in its context."""
_BUILD = "build_aiohttp_keepalive_socket_factory"
_GUARDS = "_consilium_guards"


@contextmanager
def held_to(policy: AddressPolicy) -> Iterator[None]:
    """Connections that LiteLLM makes in the block are held to *policy*."""
    token = _policy.set(policy)
    try:
        yield
    finally:
        _policy.reset(token)


def guard_connections() -> None:
    """Have LiteLLM ask before it connects. Importing it takes seconds; to be called once it is imported."""
    from litellm.llms.custom_httpx import http_handler

    build: Callable[[], SocketFactory | None] = getattr(http_handler, _BUILD)
    if hasattr(build, _GUARDS):
        return

    def guarded() -> SocketFactory:
        make = build() or _socket

        def factory(info: Any) -> socket.socket:
            policy = _policy.get()
            if policy is not None and (why := policy.obstacle(str(info[4][0]))):
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
