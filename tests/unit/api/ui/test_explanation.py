"""A request explained: who was chosen, when what ran, and what it cost."""

from __future__ import annotations

from typing import Any

import pytest

from api.ui.explanation import explained, spans_of
from api.ui.history import body_before, changes_of
from domain.audit import AuditEntry
from domain.errors import InvalidRequest
from domain.experts import Price


def call(expert: str, role: str, latency_ms: float, **more: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
    return {"expert": expert, "role": role, "status": "ok", "error": None, "latency_ms": latency_ms, "usage": usage, **more}


def told(*calls: dict[str, Any], total: float, route: float = 10.0, experts: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"calls": list(calls), "considered": [], "timings_ms": {"route": route, "experts": experts, "total": total}, **more}


def test_each_call_stands_where_it_began() -> None:
    """A second expert that is asked as well when the first stays silent begins late; sums would put both at the beginning."""
    first, hedge = call("a", "candidate", 80.0, started_ms=12.0), call("b", "candidate", 20.0, started_ms=70.0)

    spans = spans_of(told(first, hedge, total=100.0))

    assert [(round(span.x, 2), round(span.width, 2)) for span in spans] == [(0.0, 0.1), (0.12, 0.8), (0.7, 0.2)]


def test_of_older_traces_candidates_ran_at_once_and_the_aggregator_after_them() -> None:
    spans = spans_of(told(call("a", "candidate", 40.0), call("b", "candidate", 20.0), call("c", "aggregator", 50.0), total=100.0))

    assert [(span.name, round(span.x, 3), round(span.width, 3)) for span in spans] == [
        ("routing", 0.0, 0.1),
        ("a (candidate)", 0.1, 0.4),
        ("b (candidate)", 0.1, 0.2),
        ("c (aggregator)", 0.5, 0.5),
    ]


def test_of_older_traces_a_cascade_runs_one_after_the_other() -> None:
    first, judge, second = call("a", "candidate", 30.0, stage=1), call("j", "judge", 10.0, stage=1), call("b", "candidate", 50.0, stage=2)

    spans = spans_of(told(first, judge, second, total=100.0))

    assert [round(span.x, 2) for span in spans] == [0.0, 0.1, 0.1, 0.4]


def test_nothing_reaches_beyond_the_end() -> None:
    for span in spans_of(told(call("a", "candidate", 500.0), call("b", "aggregator", 500.0), total=20.0)):
        assert 0 <= span.x <= 1
        assert span.x + span.width <= 1.005


def test_costs_follow_the_prices_and_the_answer_is_the_last_of_its_experts_calls() -> None:
    calls = call("a", "candidate", 1.0), call("b", "candidate", 1.0), call("a", "aggregator", 1.0)
    found = explained(told(*calls, total=3.0, answered_by="a"), {"a": Price(1.0, 2.0)})

    assert [row.nano_usd for row in found.calls] == [2_000_000, 0, 2_000_000]
    assert [row.is_answer for row in found.calls] == [False, False, True]
    assert found.num_tokens == 4500


def entry(method: str, before: Any, after: Any, status: int = 200) -> AuditEntry:
    return AuditEntry("e", 1.0, "admin", "owner", method, "/admin/api/experts/a", status, "r", before, after)


def test_the_history_tells_changes_without_what_the_service_adds() -> None:
    before = {"id": "a", "version": 1, "health": {"state": "closed"}, "last_used_at": 3.0, "enabled": True}
    after = {"id": "a", "version": 2, "health": {"state": "open"}, "num_outdated": 0, "enabled": False}

    changed, checked, deleted, made = (
        changes_of([one])
        for one in (
            entry("PATCH", before, after),
            entry("POST", None, {"ok": True}),
            entry("DELETE", before, None, 204),
            entry("POST", None, after, 201),
        )
    )

    assert [(d.name, d.was, d.now) for d in changed[0].differences] == [("enabled", True, False)]
    assert checked == []
    assert (deleted[0].what, deleted[0].can_restore) == ("deleted", True)
    assert (made[0].what, made[0].can_restore) == ("created", False)


def test_what_the_log_keeps_in_part_only_is_not_put_back() -> None:
    """Or the placeholder of what looked like a secret would stand in the card."""
    partly = entry("DELETE", {"id": "a", "sampling": {"stop": ["***"]}}, None, 204)

    assert not changes_of([partly])[0].can_restore
    with pytest.raises(InvalidRequest, match="looked like a secret"):
        body_before(partly)
