"""What telemetry takes of a request: the sinks that receive its trace, and the thread that sends its spans.

    python benchmarks/telemetry_cost.py [--check]

Traces of a single expert and of a panel are given to the sinks as the pipeline does it. Figures are processor time, so that what else
the machine does changes them little. ``counting`` is the metrics, ``spans`` making them of the trace: that much a request waits for.
``sending`` is what the exporter's thread takes for a request afterwards, in messages of 256 requests over OTLP. Target: 0.3 ms of a
request's own time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

from api.metrics import Metrics
from api.otlp import OtlpCollector
from api.span_exporter import MAX_SENT
from api.spans import Span, spans_of
from domain.chat import Usage
from domain.experts import Backend, ExpertCard
from domain.plan import CallRole
from domain.routing import RoutingDecision, ScoredExpert
from domain.trace import CallRecord, Timings, Trace
from domain.trace_context import begun
from evaluation.report import Table

MAX_MS = 0.3
NUM_REQUESTS = 2000
NUM_MESSAGES = 10
_CARD = ExpertCard("a", Backend.OPENAI, "a-7b", base_url="http://127.0.0.1:8000/v1")


def trace(num_candidates: int) -> Trace:
    """A finished request of so many candidates, made into one answer where they are several."""
    names = [f"expert-{number}" for number in range(num_candidates)]
    usage = Usage(30, 12)
    calls = [
        CallRecord(name, CallRole.CANDIDATE, "ok", 40.0, usage, started_ms=3.0, span_id=f"{i:016x}") for i, name in enumerate(names, 1)
    ]
    if num_candidates > 1:
        calls.append(CallRecord("reader", CallRole.AGGREGATOR, "ok", 30.0, Usage(90, 12), started_ms=44.0, span_id="f" * 16))
    decision = RoutingDecision("skills", tuple(names), tuple(ScoredExpert(f"expert-{n}", 0.5, n < num_candidates, "x") for n in range(12)))
    how = "fuse:reader" if num_candidates > 1 else "single"
    timings = Timings(2.0, 40.0, 30.0, 75.0, 3.0, routed=2.5)
    return Trace("r", "auto", "auto", time.time(), "ok", decision, tuple(calls), how, timings=timings, usage=Usage(120, 48))


def median_ms(work: Callable[[], object], num: int) -> float:
    """Processor time of one *work*, of this thread."""
    times = []
    for _ in range(num):
        began = time.thread_time()
        work()
        times.append((time.thread_time() - began) * 1e3)
    return statistics.median(times)


class _TakesAll(BaseHTTPRequestHandler):
    """A collector that takes every message."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def main() -> int:
    parser = argparse.ArgumentParser(description="What telemetry takes of a request, in processor time.")
    parser.add_argument("--check", action="store_true", help="end with status 1 when the target is missed")
    arguments = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _TakesAll)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    collector = OtlpCollector(f"http://127.0.0.1:{server.server_port}", headers={}, timeout_s=10.0, version="0")
    rows, reached = list[tuple[str, ...]](), list[tuple[bool, str]]()
    for name, num_candidates in (("one expert", 1), ("a panel of three, fused", 3)):
        metrics, finished = Metrics(), trace(num_candidates)
        counting = median_ms(partial(metrics.emit, finished), NUM_REQUESTS)
        spans = median_ms(partial(told, finished), NUM_REQUESTS)
        message = [span for _ in range(MAX_SENT) for span in told(finished)]
        sending = median_ms(partial(collector.send, message), NUM_MESSAGES) / MAX_SENT
        own = counting + spans
        rows.append((name, *(f"{value:.3f}" for value in (counting, spans, own, sending))))
        reached.append((own <= MAX_MS, f"{name}: {own:.3f} ms of a request's own time, at most {MAX_MS:g}"))
    server.shutdown()
    columns = ("request", "counting", "spans", "its own time", "sending")
    print(Table("Processor time of a request's telemetry, median ms", columns, tuple(rows)).plain())
    for is_reached, what in reached:
        print(f"{'reached' if is_reached else 'MISSED'}: {what}")
    return 1 if arguments.check and not all(is_reached for is_reached, _ in reached) else 0


def told(finished: Trace) -> list[Span]:
    """The spans of *finished* in a trace of its own."""
    return spans_of(replace(finished, context=begun(None, None, ratio=1.0)), lambda _: _CARD)


if __name__ == "__main__":
    sys.exit(main())
