"""What is remembered of sessions."""

from __future__ import annotations

from routers.stickiness import SessionMemory


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_session_is_remembered_until_the_pause_is_too_long() -> None:
    clock = Clock()
    memory = SessionMemory(ttl_s=60, clock=clock)
    memory.remember("s", "calculator")
    clock.now = 60
    before = memory.recall("s")
    clock.now = 61

    assert before == "calculator"
    assert memory.recall("s") is None
    assert len(memory) == 0


def test_remembering_again_begins_the_pause_anew() -> None:
    clock = Clock()
    memory = SessionMemory(ttl_s=60, clock=clock)
    memory.remember("s", "calculator")
    clock.now = 50
    memory.remember("s", "atlas")
    clock.now = 100

    assert memory.recall("s") == "atlas"


def test_the_session_that_was_routed_longest_ago_goes_first() -> None:
    memory = SessionMemory(max_sessions=2, clock=Clock())
    for session in ("a", "b", "a", "c"):
        memory.remember(session, session.upper())

    assert memory.recall("b") is None
    assert (memory.recall("a"), memory.recall("c")) == ("A", "C")


def test_an_unknown_session_has_no_expert() -> None:
    assert SessionMemory().recall("nobody") is None
