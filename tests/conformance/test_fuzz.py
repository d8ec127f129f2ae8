"""Bad requests over the whole API: the bounded part of ``benchmarks/fuzz.py``, which sends ten thousand."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fuzz import Reply, fuzz, wrong_with
from benchmarks.fuzz_requests import Fuzzed, Fuzzer
from tests.e2e.processes import ADMIN_KEY, consilium

SEED, NUM = 20261122, 600


@pytest.mark.timeout(600)
async def test_no_bad_request_is_answered_with_a_5xx_or_tells_of_the_inside(tmp_path: Path) -> None:
    """And afterwards the service is ready, its registry as it was and its answers right."""
    with consilium(tmp_path) as url:
        summary = await fuzz(url, ADMIN_KEY, num=NUM, seed=SEED)

    assert summary.num_sent == NUM
    assert summary.findings == []
    assert sum(counts["closed"] for counts in summary.statuses.values()) < NUM / 10
    assert sum(counts["400"] for counts in summary.statuses.values()) > NUM / 4


def test_the_same_seed_makes_the_same_requests() -> None:
    def payloads(seed: int) -> list[bytes]:
        return [request.payload for request in Fuzzer(seed, host="h", key="k").requests(200)]

    assert payloads(1) == payloads(1) != payloads(2)


def told(message: str) -> bytes:
    return f'{{"error": {{"message": "{message}", "type": "t", "param": null, "code": null}}}}'.encode()


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (Reply(500, b"", told("m"), 0.1), "status 500"),
        (Reply(400, b"", b"Bad Request", 0.1), "not in OpenAI's shape"),
        (Reply(400, b"", told("Traceback (most recent"), 0.1), "the inside"),
        (
            Reply(400, b"HTTP/1.1 400\r\nx-injected: 1", told("m"), 0.1),
            "injected",
        ),
        (Reply(None, b"", b"", 60.0, is_late=True), "no answer within"),
        (Reply(None, b"", b"", 0.1), "without an answer"),
    ],
)
def test_what_is_wrong_with_an_answer_is_found(reply: Reply, found: str) -> None:
    request = Fuzzed("kind", "POST", "/v1/route", b"POST /v1/route HTTP/1.1\r\n\r\n{}")

    (said,) = wrong_with(request, reply)
    assert found in said
    assert wrong_with(request, Reply(200, b"HTTP/1.1 200 OK", b"{}", 0.1)) == []
