"""What is printed for people."""

from __future__ import annotations

import pytest

from api.cli.explain import show_explanation
from api.cli.output import bar, cell, moment, shortened

EXPLANATION = {
    "request_id": "r1",
    "strategy": "auto",
    "router": "skills",
    "reason": "roman numerals, 0.91 alike",
    "skills": [{"skill": "roman [numerals]", "similarity": 0.912, "weight": 1.0}],
    "considered": [{"expert": f"e{n}", "score": 1 - n / 20, "selected": n == 0, "why": "measured"} for n in range(15)],
    "calls": [
        {"expert": "e0", "role": "candidate", "status": "ok", "error": None, "latency_ms": 12.3, "usage": {"total_tokens": 21}},
        {"expert": "e1", "role": "aggregator", "status": "error", "error": "refused", "latency_ms": 3.0, "usage": {"total_tokens": 0}},
    ],
    "aggregator": "fuse:e1 (fallback)",
    "aggregator_reason": "the strategy names e1; it failed (refused), so e0 stands in",
    "timings_ms": {"route": 1.25, "experts": 12.3, "aggregate": 3.0, "total": 17.0, "overhead": 1.7, "first_token": None},
}


def test_an_explanation_is_complete_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    """Skills, experts with bars, calls and times; what is left out is counted; no colours in a pipe, no markup in names."""
    show_explanation(EXPLANATION)

    out = capsys.readouterr().out
    for told in (
        "strategy auto",
        "roman [numerals]",
        "0.912",
        "✓",
        "█",
        "measured",
        "and 3 more",
        "refused",
        "21",
        "12 ms",
        "request r1",
    ):
        assert told in out, told
    assert "aggregator fuse:e1 (fallback): the strategy names e1; it failed (refused), so e0 stands in" in " ".join(out.split())
    assert "route 1.2 ms" in out
    assert "first token" not in out
    assert "\x1b" not in out


def test_an_explanation_without_a_decision_is_still_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show_explanation({"router": None, "request_id": "r1", "considered": [], "skills": [], "calls": [], "timings_ms": {}})

    assert "router none" in capsys.readouterr().out


def test_cells_are_texts() -> None:
    assert [cell(value) for value in (None, True, 0.5, ["a", "b"], "[red]x")] == ["", "yes", "0.5", "a, b", "\\[red]x"]


def test_bars_stay_in_their_bounds() -> None:
    assert [len(bar(share)) for share in (-1, 0, 0.5, 1, 7)] == [0, 0, 10, 20, 20]


def test_long_texts_are_shortened_to_one_line() -> None:
    assert shortened("a\nb  c", 10) == "a b c"
    assert shortened("abcdef", 4) == "abc…"


def test_a_moment_that_is_not_known_is_empty() -> None:
    assert moment(None) == ""
    assert moment(0).startswith("19")
