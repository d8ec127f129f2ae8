"""Header values that every proxy lets through."""

from __future__ import annotations

import pytest

from api.headers import MAX_VALUE_CHARS, decision_headers, header_value
from domain.routing import RoutingDecision
from domain.skills import SkillMatch


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("naïve", "naïve"),
        ("日本語", "???"),
        ("two\r\nx-evil: 1", "two  x-evil: 1"),
        ("\x00nul\x7f", "nul"),
        ("  padded  ", "padded"),
        ("x" * 600, "x" * (MAX_VALUE_CHARS - 3) + "..."),
    ],
)
def test_values_are_safe(text: str, shown: str) -> None:
    """One line of latin-1, bounded; nothing can begin another header."""
    assert header_value(text) == shown
    header_value(text).encode("latin-1")


def test_lists_name_each_once() -> None:
    """An expert that was sampled twice is named once; a comma inside a skill does not split it."""
    decision = RoutingDecision("skills", ("a", "b", "a"), skills=(SkillMatch("add, subtract", 0.9, 1.0),))
    headers = decision_headers(strategy="panel", decision=decision)

    assert headers["x-consilium-experts"] == "a, b"
    assert headers["x-consilium-skills"] == "add  subtract"


def test_a_fallback_is_told_with_its_reason_on_one_line_and_nothing_else_is() -> None:
    why = f"general is the strategy's fallback: the query is like\r\nx-evil: {'skill, ' * 100}"
    taken = decision_headers(strategy="auto", decision=RoutingDecision("skills", ("general",), reason=why, fallback=True))
    chosen = decision_headers(strategy="auto", decision=RoutingDecision("skills", ("general",), reason="it is best"))

    assert taken["x-consilium-fallback"] == header_value(why)
    assert taken["x-consilium-fallback"].startswith("general is the strategy's fallback: the query is like  x-evil")
    assert len(taken["x-consilium-fallback"]) == MAX_VALUE_CHARS
    assert "x-consilium-fallback" not in chosen


def test_what_is_not_known_is_left_out() -> None:
    """No header with an empty value."""
    assert decision_headers(strategy=None, decision=None) == {}
