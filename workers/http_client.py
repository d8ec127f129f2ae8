"""Requests over aiohttp's pooled connections, without its session.

aiohttp opens the connections, looks names up, does TLS, keeps what is idle and reads responses. Its session makes anew for every request
what is the same each time: the address and its parts, default headers, cookies, authentication, redirects, a request and a response
object. Here that is made once for each address, and a request is a few lines of text. Seen by the processor time of one request to a
server that answers at once: 57 us with the session, 18 us so (ADR 15).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from yarl import URL

from workers.addresses import AddressPolicy
from workers.limits import HttpLimits

_JOINED_BYTES = 65_536
"""Up to this size a body is copied behind its head, to go out in one packet; a larger one is not worth the copy."""
_BUFFER_BYTES = 65_536
"""Of a response that nobody reads; when twice that has come the connection is not read from."""
_MAX_ADDRESSES = 1_024
"""Whose opening lines are kept; there are two for each expert, a few for each server that is asked for its models."""
_SCHEMES = ("http", "https")
_NOT_IN_A_HEADER = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
"""What would end a header in its middle, or cannot be sent at all."""


@dataclass(frozen=True, slots=True)
class _Address:
    """One method at one address."""

    request: aiohttp.ClientRequest
    """Never sent: it tells the connector what to connect to."""
    opening: str
    """The request's first lines, which are the same for all."""
    num_attempts: int
    """Times that it is sent where a connection ends without a word, as a kept one may at any moment: what changes nothing may be."""


class Response:
    """What a server answered."""

    __slots__ = ("content", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], content: aiohttp.StreamReader) -> None:
        self.status = status
        self.headers = headers
        """Without regard to capitals."""
        self.content = content

    @property
    def content_type(self) -> str:
        """Without its parameters; what HTTP takes it for where the server does not say."""
        told = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return told or "application/octet-stream"


class Exchange:
    """``async with``: the request is sent, and there is its response. After the block the connection is kept if the whole response was
    read and the whole request sent, and closed otherwise, which is how servers learn to stop.

    Raises what aiohttp's session does: ``aiohttp.ClientError`` and ``OSError``. Waits for a response as long as the server takes: that is
    the caller's to bound.
    """

    __slots__ = ("_address", "_body", "_client", "_connection", "_headers")

    def __init__(self, client: HttpClient, address: _Address, headers: Mapping[str, str], body: bytes) -> None:
        self._client, self._address, self._headers, self._body = client, address, headers, body
        self._connection: Connection | None = None

    async def __aenter__(self) -> Response:
        head, num_left = _head(self._address, self._headers, len(self._body)), self._address.num_attempts
        while True:
            num_left -= 1
            connection = await self._client.connection(self._address.request)
            try:
                response = await self._answer(connection, head)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                _abandon(connection)
                if not num_left:
                    raise
            except BaseException:
                _abandon(connection)
                raise
            else:
                self._connection = connection
                return response

    async def __aexit__(self, *_: object) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or protocol.should_close or transport is None or transport.get_write_buffer_size():
            _abandon(connection)
        else:
            connection.release()

    async def _answer(self, connection: Connection, head: bytes) -> Response:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("the connection was lost before anything was sent")
        protocol.set_response_params(read_until_eof=True, read_bufsize=_BUFFER_BYTES)
        if len(self._body) <= _JOINED_BYTES:
            # One write, since uvloop sends at each: one system call, and one read for the server. In the loop's next turn, with those of
            # other requests: so the processor does much of one thing, then much of another (5 % more requests a second at 64 connections).
            asyncio.get_running_loop().call_soon(_write, transport, head + self._body)
        else:
            transport.write(head)
            transport.write(self._body)
        try:
            message, content = await protocol.read()
            while 100 <= message.code < 200 and message.code != 101:
                message, content = await protocol.read()
        except HttpProcessingError as error:
            info = self._address.request.request_info
            raise aiohttp.ClientResponseError(info, (), status=error.code, message=error.message, headers=error.headers) from error
        return Response(message.code, message.headers, content)


class HttpClient:
    """Connections to any number of servers, kept for the next request."""

    def __init__(self, limits: HttpLimits, addresses: AddressPolicy) -> None:
        """Needs a running event loop."""
        self._connector = aiohttp.TCPConnector(
            limit=limits.max_connections,  # aiohttp's own is 100, and a stream holds one
            limit_per_host=0,
            keepalive_timeout=limits.keep_alive_s,
            socket_factory=addresses.socket,
        )
        self._timeout = aiohttp.ClientTimeout(total=None, connect=limits.connect_timeout_s)
        self._known: dict[tuple[str, str], _Address] = {}

    async def close(self) -> None:
        """Close every connection; exchanges still running fail."""
        await self._connector.close()

    def get(self, url: str, headers: Mapping[str, str]) -> Exchange:
        """Asks for what is at *url*, once more where the connection ends without a word. Raises ``aiohttp.InvalidURL`` as ``post``."""
        return Exchange(self, self._address("GET", url), headers, b"")

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Exchange:
        """Sends *body*, which is JSON. Raises ``aiohttp.InvalidURL`` for an address that is none, or that holds a password."""
        return Exchange(self, self._address("POST", url), headers, body)

    async def connection(self, request: aiohttp.ClientRequest) -> Connection:
        """One to where *request* goes: a kept one, or a new one within the time for that."""
        try:
            connection = await self._connector.connect(request, [], self._timeout)
            while connection.protocol is not None and connection.protocol.should_close:
                # Something came on a kept one that nobody had asked for: it would be taken for the answer to what is asked now.
                connection.close()
                connection = await self._connector.connect(request, [], self._timeout)
        except TimeoutError as error:
            msg = f"Connection timeout to host {request.url.host}"
            raise aiohttp.ConnectionTimeoutError(msg) from error
        return connection

    def _address(self, method: str, url: str) -> _Address:
        known = self._known.get((method, url))
        if known is None:
            if len(self._known) >= _MAX_ADDRESSES:
                self._known.clear()
            known = self._known[method, url] = _address_of(method, url)
        return known


def _address_of(method: str, url: str) -> _Address:
    try:
        parsed = URL(url)
    except ValueError as error:
        raise aiohttp.InvalidURL(url, str(error)) from error
    if parsed.scheme not in _SCHEMES:
        raise aiohttp.NonHttpUrlClientError(url)
    if parsed.raw_user or parsed.raw_password:
        raise aiohttp.InvalidURL(parsed.with_user(None), "it holds a user name or password: put the key into the expert's api_key")
    own = {"User-Agent": "consilium", "Content-Type": "application/json"}
    request = aiohttp.ClientRequest(method, parsed, headers=own, loop=asyncio.get_running_loop())
    headers = request.headers.copy()
    headers.pop("Content-Length", None)
    opening = f"{method} {request.url.raw_path_qs} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return _Address(request, opening, 2 if method == "GET" else 1)


def _head(address: _Address, headers: Mapping[str, str], num_bytes: int) -> bytes:
    """The request up to its body. Raises ``aiohttp.ClientError`` for a header that cannot be sent."""
    text = address.opening
    for name, value in headers.items():
        if _NOT_IN_A_HEADER.search(value):
            msg = f"the header {name} holds a letter that headers cannot hold"  # which may be a secret: it is not repeated
            raise aiohttp.ClientError(msg)
        text += f"{name}: {value}\r\n"
    return f"{text}Content-Length: {num_bytes}\r\n\r\n".encode()


def _write(transport: asyncio.Transport, data: bytes) -> None:
    if not transport.is_closing():  # else whoever waits for the response is told
        transport.write(data)


def _abandon(connection: Connection) -> None:
    """Close it; at once where something is unsent, which would otherwise be waited for as long as the server does not read."""
    transport = connection.transport
    if transport is not None and transport.get_write_buffer_size():
        transport.abort()
    connection.close()
