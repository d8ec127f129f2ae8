"""What is remembered of sessions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.plan import CallRole
from domain.routing import RoutingDecision
from domain.trace import CallRecord, Trace
from routers.stickiness import SessionMemory, SessionRoutes

S = (None, "s")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_session_is_remembered_until_the_pause_is_too_long() -> None:
    clock = Clock()
    memory = SessionMemory(ttl_s=60, clock=clock)
    memory.remember(S, "calculator")
    clock.now = 60
    before = memory.recall(S)
    clock.now = 61

    assert before == "calculator"
    assert memory.recall(S) is None
    assert len(memory) == 0


def test_remembering_again_begins_the_pause_anew() -> None:
    clock = Clock()
    memory = SessionMemory(ttl_s=60, clock=clock)
    memory.remember(S, "calculator")
    clock.now = 50
    memory.remember(S, "atlas")
    clock.now = 100

    assert memory.recall(S) == "atlas"


def test_the_session_that_was_routed_longest_ago_goes_first() -> None:
    memory = SessionMemory(max_sessions=2, clock=Clock())
    for session in ("a", "b", "a", "c"):
        memory.remember((None, session), session.upper())

    assert memory.recall((None, "b")) is None
    assert (memory.recall((None, "a")), memory.recall((None, "c"))) == ("A", "C")


def test_an_unknown_session_has_no_expert() -> None:
    assert SessionMemory().recall((None, "nobody")) is None


def trace(*calls: CallRecord, status: str = "ok", router: str = "skills", fallback: bool = False) -> Trace:
    """Of a request in the session ``s`` that was given to ``atlas`` and ``mirror``."""
    decision = RoutingDecision(router, ("atlas", "mirror"), fallback=fallback)
    return Trace("r1", "auto", "auto", 0.0, status, decision, calls, session_id="s")


def call(expert_id: str, status: str = "ok", role: CallRole = CallRole.CANDIDATE) -> CallRecord:
    return CallRecord(expert_id, role, status, 1.0)


@pytest.mark.parametrize(
    ("calls", "remembered"),
    [
        ((call("mirror"), call("atlas")), "atlas"),
        ((call("atlas", "error"), call("mirror")), "mirror"),
        ((call("atlas", role=CallRole.AGGREGATOR), call("mirror")), "mirror"),
    ],
)
def test_a_session_is_with_the_best_expert_that_answered(calls: tuple[CallRecord, ...], remembered: str) -> None:
    memory = SessionMemory()
    memory.emit(trace(*calls))

    assert memory.recall(S) == remembered


@pytest.mark.parametrize(
    "unanswered",
    [
        trace(status="error"),
        trace(call("atlas"), status="cancelled"),
        trace(call("atlas"), fallback=True),
        trace(call("atlas"), router="random"),
    ],
)
def test_what_failed_or_was_not_chosen_by_skill_changes_no_session(unanswered: Trace) -> None:
    memory = SessionMemory()
    memory.emit(unanswered)

    assert memory.recall(S) is None


def test_two_callers_may_name_their_sessions_alike() -> None:
    memory, routes = SessionMemory(), SessionRoutes()
    for key_id, expert_id in (("team", "atlas"), ("other", "mirror")):
        answered = replace(trace(call(expert_id)), key_id=key_id)
        memory.emit(answered)
        routes.emit(answered)

    assert (memory.recall(("team", "s")), memory.recall(("other", "s")), memory.recall(S)) == ("atlas", "mirror", None)
    assert (routes.shares(("team", "s")), routes.shares(("other", "s")), routes.shares(S)) == ({"atlas": 1.0}, {"mirror": 1.0}, {})
