"""Forms are read as they come, wherever the network cuts them."""

from __future__ import annotations

import itertools

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.multipart import MAX_HEAD_BYTES, MAX_PARTS, FormParser, PartBegins, PartEnds, boundary_of
from domain.errors import InvalidRequest

Part = tuple[str, str | None, bytes]
BOUNDARY = b"xx"


def read(body: bytes, boundary: bytes = BOUNDARY, *, cuts: list[int] | None = None) -> list[Part]:
    """Name, file name and content of each part of *body*, which arrives cut at *cuts*."""
    places = [0, *sorted(cuts or []), len(body)]
    parser, parts, content = FormParser(boundary), list[Part](), b""
    for start, end in itertools.pairwise(places):
        for event in parser.feed(body[start:end]):
            match event:
                case PartBegins(name, filename):
                    parts.append((name, filename, b""))
                    content = b""
                case PartEnds():
                    parts[-1] = (*parts[-1][:2], content)
                case bytes():
                    content += event
    parser.finish()
    return parts


def part(content: bytes, *, head: bytes = b'Content-Disposition: form-data; name="a"') -> bytes:
    return b"--xx\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


CONTENTS = st.binary(max_size=60) | st.lists(st.sampled_from([b"\r\n", b"--", b"xx", b"--xx", b"\r", b"\n", b"\r\n-", b"-xx"])).map(
    b"".join
)


@given(CONTENTS.filter(lambda content: b"\r\n--xx" not in b"\r\n" + content), st.lists(st.integers(0, 120), max_size=6))
def test_a_part_is_the_same_wherever_it_is_cut(content: bytes, cuts: list[int]) -> None:
    body = part(content) + part(b"second") + b"--xx--\r\n"
    cuts = [cut for cut in cuts if cut <= len(body)]

    assert read(body, cuts=cuts) == [("a", None, content), ("a", None, b"second")]


def test_byte_by_byte() -> None:
    body = part(b"\r\n--x") + b"--xx--"

    assert read(body, cuts=list(range(len(body)))) == [("a", None, b"\r\n--x")]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), st.binary(max_size=100))
def test_what_httpx_sends_is_read(filename: str, content: bytes) -> None:
    request = httpx.Request("POST", "http://x", data={"purpose": "batch"}, files={"file": (filename, content)})
    body = request.read()

    purpose, file = read(body, boundary_of(request.headers["content-type"]), cuts=[len(body) // 2])
    assert purpose == ("purpose", None, b"batch")
    assert (file[0], file[2]) == ("file", content)
    if filename.isprintable() and "\\" not in filename:
        assert file[1] == filename


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        ('form-data; name="file"; filename="in.jsonl"', "file", "in.jsonl"),
        ("form-data; name=file; filename=in.jsonl", "file", "in.jsonl"),
        ('FORM-DATA; NAME="file" ; FileName="a;b=c"', "file", "a;b=c"),
        ('form-data; name="file"; filename="say \\"hi\\" %22.txt"', "file", 'say "hi" ".txt'),
        ('form-data; name="expires_after[seconds]"', "expires_after[seconds]", None),
        ('form-data; name="José"; filename=""', "José", ""),
    ],
)
def test_names_are_read_as_clients_write_them(disposition: str, name: str, filename: str | None) -> None:
    head = b"Content-Type: text/plain\r\ncontent-disposition: " + disposition.encode()

    assert read(part(b"1", head=head) + b"--xx--") == [(name, filename, b"1")]


def test_preamble_padding_and_epilogue_say_nothing() -> None:
    body = b"This is a form.\r\n" + part(b"1").replace(b"--xx\r\n", b"--xx \t\r\n") + b"--xx--\r\nnot --xx\r\nanything"

    assert read(body, cuts=[3, 20, 25]) == [("a", None, b"1")]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "ends before its last boundary"),
        (b"no form at all", "ends before"),
        (part(b"1"), "ends before"),
        (part(b"1")[:-2] + b"--xx--", "ends before"),
        (part(b"1") + b"--xxyy\r\n", "followed by something else"),
        (part(b"1", head=b"Content-Type: text/plain") + b"--xx--", "no Content-Disposition"),
        (part(b"1", head=b"Content-Disposition: attachment; name=a") + b"--xx--", "'attachment', not form-data"),
        (part(b"1", head=b"Content-Disposition: form-data; filename=a") + b"--xx--", "no name"),
        (part(b"1", head=b"X: " + b"x" * MAX_HEAD_BYTES) + b"--xx--", "header of a part has more than"),
        (b"--xx\r\n" + b"x" * 3 * MAX_HEAD_BYTES, "header of a part has more than"),
        (part(b"1") * (MAX_PARTS + 1) + b"--xx--", "more than 32 parts"),
        (b"--xx" + b" " * 3 * MAX_HEAD_BYTES, "followed by something else"),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read(body)


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'x' * 71}"])
def test_a_form_needs_a_boundary(kind: str) -> None:
    with pytest.raises(InvalidRequest, match="names no boundary"):
        boundary_of(kind)


def test_a_content_type_is_read_when_it_is_short_only() -> None:
    """The standard library takes two seconds for one with sixty thousand parameters, and nobody else is served meanwhile."""
    with pytest.raises(InvalidRequest, match="more than 256 letters"):
        boundary_of("multipart/form-data; boundary=xx" + ";" * 60_000)
    assert boundary_of(f"multipart/form-data; charset=utf-8; boundary={'x' * 70}") == b"x" * 70


def test_nothing_is_gathered() -> None:
    """Content goes on at once, but for what may be the beginning of a boundary."""
    parser = FormParser(BOUNDARY)
    list(parser.feed(b"--xx\r\nContent-Disposition: form-data; name=a\r\n\r\n"))

    passed_on = sum(len(event) for _ in range(10) for event in parser.feed(b"x" * 10_000) if isinstance(event, bytes))

    assert passed_on >= 100_000 - 10
