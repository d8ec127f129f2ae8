"""A chunk of an input file is read without holding what its lines ask."""

from __future__ import annotations

import io
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from domain.batch import BatchLine, InputLine
from orchestrator.batch import reading
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.validation import InputRequest


class Body(dict[str, Any]):
    """A dictionary that can be watched."""


async def test_a_body_is_let_go_of_before_the_next_line_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk has a thousand lines, and a line up to ten megabytes."""
    bodies: list[weakref.ref[Body]] = []
    most = 0

    def read_input(*_: object, **__: object) -> Iterator[InputRequest]:
        nonlocal most
        for number in range(50):
            body = Body()
            bodies.append(weakref.ref(body))
            most = max(most, sum(known() is not None for known in bodies))
            yield InputRequest(BatchLine(number, f"line {number}"), body, number, 1)

    monkeypatch.setattr(reading, "read_input", read_input)
    found = [lines async for lines, _ in reading.read_lines(io.BytesIO(), "/v1/embeddings", BatchLimits(), lambda _: None)]

    assert found == [[InputLine(BatchLine(number, f"line {number}"), number, 1) for number in range(50)]]
    assert most <= 3
