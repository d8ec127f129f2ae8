"""A real OTLP/HTTP receiver on loopback: takes messages as the protocol has them, and keeps what they say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

WAIT_S = 30.0
_KINDS = {Span.SPAN_KIND_SERVER: "server", Span.SPAN_KIND_INTERNAL: "internal", Span.SPAN_KIND_CLIENT: "client"}


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span as it came. Ids are hexadecimal digits, "" where there is none; times are nanoseconds since the epoch."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    is_error: bool
    resource: Mapping[str, Any]


@dataclass
class Collector:
    """What it received, and how it answers."""

    url: str = ""
    status: int = 200
    spans: list[ReceivedSpan] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, num_spans: int) -> list[ReceivedSpan]:
        """Every span that came, as soon as there are *num_spans* of them."""
        async with asyncio.timeout(WAIT_S):
            while len(self.spans) < num_spans:
                self._changed.clear()
                await self._changed.wait()
        return self.spans

    async def until_asked(self, num: int) -> None:
        """Wait until *num* messages came, whatever they were answered."""
        async with asyncio.timeout(WAIT_S):
            while len(self.bodies) < num:
                self._changed.clear()
                await self._changed.wait()

    async def take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        self.bodies.append(body)
        self.headers.append(request.headers.copy())
        if self.status == 200:
            self.spans += _spans_in(ExportTraceServiceRequest.FromString(body))
        self._changed.set()
        told = ExportTraceServiceResponse().SerializeToString()
        return web.Response(status=self.status, body=told, content_type="application/x-protobuf")


def _spans_in(message: ExportTraceServiceRequest) -> list[ReceivedSpan]:
    return [
        ReceivedSpan(
            span.name,
            _KINDS[span.kind],
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.trace_state,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            {pair.key: _value(pair.value) for pair in span.attributes},
            span.status.code == 2,
            {pair.key: _value(pair.value) for pair in resource.resource.attributes},
        )
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(inner) for inner in value.array_value.values]
    return None if kind is None else getattr(value, kind)


@asynccontextmanager
async def running_collector() -> AsyncIterator[Collector]:
    """A collector on a free port of loopback."""
    collector = Collector()
    application = web.Application()
    application.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        collector.url = f"http://{host}:{port}"
        yield collector
    finally:
        await runner.cleanup()


@contextmanager
def collecting() -> Iterator[Collector]:
    """The same in a thread of its own, for tests that wait for processes. What it received is read, not awaited."""
    made: list[Collector] = []
    is_there, loop = threading.Event(), asyncio.new_event_loop()

    async def run(ends: asyncio.Event) -> None:
        async with running_collector() as collector:
            made.append(collector)
            is_there.set()
            await ends.wait()

    ends = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(run(ends),))
    thread.start()
    try:
        assert is_there.wait(WAIT_S)
        yield made[0]
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join(WAIT_S)
        loop.close()
