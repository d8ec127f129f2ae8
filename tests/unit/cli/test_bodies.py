"""Rows that are sent in bodies of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from api.cli import bodies
from api.cli.bodies import bodies_of, bodies_of_groups


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BYTES", 200)


def row(expert: str, number: int, size: int = 20) -> dict[str, Any]:
    return {"expert_id": expert, "number": number, "answer": "x" * size}


def test_rows_are_cut_by_their_size_and_keep_their_order() -> None:
    """Long answers too: a body that is too large is refused when those before it are stored already."""
    rows = [row("a", number) for number in range(10)]

    cut = list(bodies_of(rows))

    assert [one for body in cut for one in body] == rows
    assert [len(body) for body in cut] == [2, 2, 2, 2, 2]
    assert [len(body) for body in bodies_of([row("a", 1, 900), row("a", 2)])] == [1, 1]


def test_what_belongs_together_is_never_cut() -> None:
    """An import of aggregators replaces all that its experts had: the second half would take the first away."""
    rows = [row(expert, number) for number in range(3) for expert in ("a", "b")]

    cut = list(bodies_of_groups(rows, "expert_id"))

    assert [{one["expert_id"] for one in body} for body in cut] == [{"a"}, {"b"}]
    assert sum(len(body) for body in cut) == 6


@pytest.mark.parametrize("cut", [bodies_of, lambda rows: bodies_of_groups(rows, "expert_id")])
def test_of_no_rows_nothing_is_sent(cut: Callable[[list[dict[str, Any]]], Iterator[Any]]) -> None:
    assert list(cut([])) == []
