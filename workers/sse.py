"""Server-sent events, as far as OpenAI's streams use them (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from dataclasses import dataclass

from domain.made_often import made_often

DONE = "[DONE]"


@made_often
@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event."""

    data: str
    name: str = "message"


class EventTooLarge(ValueError):
    """One event is larger than anything that a server has reason to send."""


class SseParser:
    """Bytes in, events out. Pieces may be cut anywhere: inside a line, a character, or a CR LF pair."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._pending = b""
        self._data: list[str] = []
        self._name = ""
        self._num_bytes = 0
        self._skip_line_feed = False
        self._first = True

    def feed(self, piece: bytes) -> list[Event]:
        """The events that *piece* completes. Raises ``EventTooLarge``."""
        if self._skip_line_feed and piece:
            piece, self._skip_line_feed = piece.removeprefix(b"\n"), False
        buffer = self._pending + piece
        # A CR at the very end ends its line now; a LF that follows in the next piece belongs to it.
        self._skip_line_feed = buffer.endswith(b"\r")
        if b"\r" in buffer:
            buffer = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._pending = buffer.split(b"\n")
        events = [event for line in lines if (event := self._line(line)) is not None]
        self._check(len(self._pending))
        return events

    def _check(self, num_more: int) -> None:
        if self._num_bytes + num_more > self._max_event_bytes:
            msg = f"one event of the stream is larger than {self._max_event_bytes} bytes"
            raise EventTooLarge(msg)

    def finish(self) -> list[Event]:
        """An event that only lacks its closing empty line. Not by the letter of the standard, but servers do send it so."""
        return [*self.feed(b"\n"), *self.feed(b"\n")]

    def _line(self, line: bytes) -> Event | None:
        if self._first:
            line, self._first = line.removeprefix(b"\xef\xbb\xbf"), False
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        self._check(len(line))
        self._num_bytes += len(line)
        if field == b"data":
            self._data.append(value.decode("utf-8", "replace"))
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        return None  # comments (empty field name), id, retry and unknown fields carry nothing for us

    def _dispatch(self) -> Event | None:
        event = Event("\n".join(self._data), self._name or "message") if self._data else None
        self._data, self._name, self._num_bytes = [], "", 0
        return event
