"""Server-sent events are read however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.sse import Event, EventTooLarge, SseParser

STREAM = (
    b"\xef\xbb\xbf: a comment\n\n"
    b"data: one\n\n"
    b"data:two\r\n\r\n"
    b"event: error\rdata: three\r\r"
    b"id: 7\nretry: 10\nunknown: x\ndata: four\ndata:  five\n\n"
    b"data\n\n"
    b"data: \xc3\xa9\xe2\x82\xac\n\n"
    b": ping\n\n"
    b"data: [DONE]\n\n"
)
EVENTS = [
    Event("one"), Event("two"), Event("three", "error"), Event("four\n five"), Event(""), Event("é€"), Event("[DONE]"),
]  # fmt: skip


def test_reads_every_form_that_the_standard_allows() -> None:
    assert SseParser(1000).feed(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_pieces_cut_anywhere_give_the_same_events(cuts: list[int]) -> None:
    parser, events, points = SseParser(1000), [], sorted(cuts)
    for start, end in zip([0, *points], [*points, len(STREAM)], strict=True):
        events += parser.feed(STREAM[start:end])

    assert events == EVENTS


def test_byte_by_byte() -> None:
    parser = SseParser(1000)

    assert [event for byte in STREAM for event in parser.feed(bytes([byte]))] == EVENTS


def test_a_last_event_without_its_empty_line_is_still_told() -> None:
    parser = SseParser(1000)

    assert parser.feed(b"data: [DONE]") == []
    assert parser.finish() == [Event("[DONE]")]


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 100, b"data: " + b"x" * 100 + b"\n\n", b"data: xxxx\n" * 20])
def test_an_endless_event_is_refused(piece: bytes) -> None:
    with pytest.raises(EventTooLarge, match="50 bytes"):
        SseParser(50).feed(piece)


def test_many_small_events_in_one_piece_are_fine() -> None:
    assert len(SseParser(50).feed(b"data: xxxx\n\n" * 1000)) == 1000
