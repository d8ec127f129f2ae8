"""W3C Trace Context: what is continued, what is begun anew, and what is kept."""

from __future__ import annotations

import re

import pytest

from domain.trace_context import MAX_STATE_CHARS, TraceContext, begun, is_sampled, named

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_callers_trace_is_continued_below_the_callers_span() -> None:
    context = begun(f"00-{TRACE}-{SPAN}-01", "congo=t61rcWkgMzE", ratio=0.0)

    assert (context.trace_id, context.parent_id, context.sampled, context.state) == (TRACE, SPAN, True, "congo=t61rcWkgMzE")
    assert re.fullmatch(r"[0-9a-f]{16}", context.span_id)
    assert context.span_id != SPAN
    assert context.traceparent == f"00-{TRACE}-{context.span_id}-01"


def test_a_caller_that_keeps_nothing_is_followed() -> None:
    """Whatever share would be kept of others: half a trace is of no use."""
    context = begun(f"00-{TRACE}-{SPAN}-00", None, ratio=1.0)

    assert not context.sampled
    assert context.traceparent.endswith("-00")


@pytest.mark.parametrize(
    "header",
    [
        f"01-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
        f"00-{TRACE}-{SPAN}-03",
        f" 00-{TRACE}-{SPAN}-01 ",
    ],
)
def test_later_versions_and_flags_are_read_as_far_as_they_are_known(header: str) -> None:
    context = begun(header, None, ratio=0.0)

    assert (context.trace_id, context.parent_id, context.sampled) == (TRACE, SPAN, True)
    assert context.traceparent.startswith("00-")
    assert context.traceparent.endswith("-01")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"00-{TRACE}-{SPAN}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0g",
    ],
)
def test_what_is_no_context_begins_a_trace_and_what_came_with_it_is_dropped(header: str | None) -> None:
    context = begun(header, "congo=t61rcWkgMzE", ratio=1.0)

    assert context.trace_id != TRACE
    assert re.fullmatch(r"[0-9a-f]{32}", context.trace_id)
    assert (context.parent_id, context.state, context.sampled) == (None, None, True)


@pytest.mark.parametrize("state", ["x" * (MAX_STATE_CHARS + 1), "a=\u00e9", "", None])
def test_a_state_that_cannot_be_passed_on_is_dropped_alone(state: str | None) -> None:
    context = begun(f"00-{TRACE}-{SPAN}-01", state, ratio=0.0)

    assert (context.trace_id, context.state) == (TRACE, None)


def test_the_share_goes_by_the_ids_last_half() -> None:
    """As OpenTelemetry's own sampler has it, so that services agree about a trace."""
    low, high = "f" * 16 + "0" * 15 + "1", "0" * 16 + "f" * 16

    assert is_sampled(low, 0.01)
    assert not is_sampled(high, 0.99)
    assert is_sampled(high, 1.0)
    assert not is_sampled(low, 0.0)
    assert sum(is_sampled(begun(None, None, ratio=0.0).trace_id, 0.25) for _ in range(4000)) == pytest.approx(1000, abs=200)


def test_children_share_the_trace_and_have_ids_of_their_own() -> None:
    parent = TraceContext(TRACE, SPAN, None, sampled=False, state="a=b")
    one, other = parent.child(), parent.child()

    assert one.span_id != other.span_id
    assert {(c.trace_id, c.parent_id, c.sampled, c.state) for c in (one, other)} == {(TRACE, SPAN, False, "a=b")}


def test_a_named_child_is_the_same_whoever_asks() -> None:
    parent = TraceContext(TRACE, SPAN)
    child = parent.named_child("routing")

    assert child == parent.named_child("routing")
    assert len(child.span_id) == len(SPAN)
    assert (
        len({child.span_id, parent.named_child("aggregation").span_id, TraceContext(TRACE, "1" * 16).named_child("routing").span_id}) == 3
    )


def test_what_has_a_name_has_the_same_span_in_every_process() -> None:
    """Whoever goes on with a batch's line after a kill continues its trace."""
    context = named("batch_7-12", ratio=1.0)

    assert context == named("batch_7-12", ratio=1.0)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", context.traceparent)
    assert context.parent_id is None
    other = named("batch_7-13", ratio=1.0)
    assert (other.trace_id, other.span_id) != (context.trace_id, context.span_id)


def test_of_named_traces_the_ratio_is_kept() -> None:
    kept = [named(f"batch_7-{number}", ratio=0.25).sampled for number in range(2000)]

    assert 400 < sum(kept) < 600
