"""``multipart/form-data`` (RFC 7578), piece by piece: what a part holds goes on as it comes, nothing is gathered. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from enum import Enum, auto

from domain.errors import InvalidRequest

MAX_HEAD_BYTES = 8192
"""Of the header lines of one part; usual ones take a hundred."""
MAX_PARTS = 32
"""Of one form."""
MAX_TYPE = 256
"""Letters of a content type: one with the longest boundary has a third of it, and the standard library takes seconds for long ones."""
_MAX_BOUNDARY = 70  # RFC 2046
_PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))')
_PERCENT = {"%22": '"', "%0D": "\r", "%0A": "\n"}
"""What browsers escape in names, and nothing else (WHATWG)."""


@dataclass(frozen=True, slots=True)
class PartBegins:
    name: str
    filename: str | None
    """None for what is no file."""


@dataclass(frozen=True, slots=True)
class PartEnds:
    pass


Event = PartBegins | bytes | PartEnds
"""Bytes belong to the part that began last."""


class _At(Enum):
    PREAMBLE = auto()
    DELIMITER = auto()
    HEAD = auto()
    CONTENT = auto()
    END = auto()


def boundary_of(content_type: str) -> bytes:
    """Raises ``InvalidRequest`` when *content_type* names none."""
    if len(content_type) > MAX_TYPE:
        raise _broken(f"its content type has more than {MAX_TYPE} letters")
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_boundary()
    if not boundary or len(boundary) > _MAX_BOUNDARY or not boundary.isascii():
        raise _broken("its content type names no boundary")
    return boundary.encode()


class FormParser:
    """``feed`` it the body; ``finish`` raises unless the form was complete. Holds less than a piece and a part's head."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._at, self._num_parts = _At.PREAMBLE, 0
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter looks like the others

    def feed(self, piece: bytes) -> Iterator[Event]:
        """What *piece* completes. Raises ``InvalidRequest``."""
        self._buffer += piece
        progress = True
        while progress:
            match self._at:
                case _At.PREAMBLE | _At.CONTENT:
                    content, progress = self._content()
                    if content and self._at is not _At.PREAMBLE:
                        yield content
                    if progress:
                        if self._at is _At.CONTENT:
                            yield PartEnds()
                        self._at = _At.DELIMITER
                case _At.DELIMITER:
                    progress = self._after_delimiter()
                case _At.HEAD:
                    head = self._head()
                    progress = head is not None
                    if head is not None:
                        yield head
                        self._at = _At.CONTENT
                case _At.END:
                    self._buffer.clear()  # an epilogue says nothing
                    progress = False

    def finish(self) -> None:
        """The body has ended. Raises ``InvalidRequest`` when the form has not."""
        if self._at is not _At.END:
            raise _broken("it ends before its last boundary")

    def _content(self) -> tuple[bytes, bool]:
        """What is surely before the next delimiter, and whether that was found."""
        end = self._buffer.find(self._delimiter)
        if end >= 0:
            content = bytes(self._buffer[:end])
            del self._buffer[: end + len(self._delimiter)]
            return content, True
        sure = max(0, len(self._buffer) - len(self._delimiter) + 1)
        content = bytes(self._buffer[:sure])
        del self._buffer[:sure]
        return content, False

    def _after_delimiter(self) -> bool:
        """Whether it is known what follows: another part's head, or the end."""
        if self._buffer.startswith(b"--"):
            self._at = _At.END
            return True
        line, found, _ = self._buffer.partition(b"\r\n")
        rest = bytes(line).strip(b" \t")
        if rest not in ({b""} if found else {b"", b"\r", b"-"}) or len(line) > MAX_HEAD_BYTES:
            raise _broken("a boundary is followed by something else than a line's end")
        if not found:
            return False
        del self._buffer[: len(line)]  # the line's end stays: a head without lines is empty
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise _broken(f"it has more than {MAX_PARTS} parts")
        self._at = _At.HEAD
        return True

    def _head(self) -> PartBegins | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._buffer) > MAX_HEAD_BYTES + 4):
            raise _broken(f"the header of a part has more than {MAX_HEAD_BYTES} bytes")
        if end < 0:
            return None
        lines = self._buffer[:end].decode("utf-8", "replace").split("\r\n")
        del self._buffer[: end + 4]
        for line in lines:
            field, _, value = line.partition(":")
            if field.strip().lower() == "content-disposition":
                return _part(value)
        raise _broken("a part has no Content-Disposition")


def _part(disposition: str) -> PartBegins:
    kind, _, rest = disposition.partition(";")
    if kind.strip().lower() != "form-data":
        raise _broken(f"a part is {kind.strip()[:40]!r}, not form-data")
    found = {name.lower(): _unescaped(quoted) if quoted else bare for name, quoted, bare in _PARAMETER.findall(";" + rest)}
    if "name" not in found:
        raise _broken("a part has no name")
    return PartBegins(found["name"], found.get("filename"))


def _unescaped(quoted: str) -> str:
    text = re.sub(r'\\(["\\])', r"\1", quoted)
    for escape, letter in _PERCENT.items():
        text = text.replace(escape, letter)
    return text


def _broken(why: str) -> InvalidRequest:
    return InvalidRequest(f"the form is not valid multipart/form-data: {why}")
