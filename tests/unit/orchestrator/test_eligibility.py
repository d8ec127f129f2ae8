"""Whether an expert may be called is looked at once for each request, not once for each that asks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.access import PUBLIC, Access
from domain.experts import ExpertCard, ExpertRole, HealthState
from orchestrator import preparation
from orchestrator.eligibility import Check, eligible
from tests.fakes.services import card, registry
from tests.unit.orchestrator.test_pipeline import Setup, ask


async def test_one_check_serves_a_whole_request(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Check] = []

    class Counted(Check):
        def __init__(self, *given: object) -> None:
            super().__init__(*given)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(preparation, "Check", Counted)
    setup = Setup({"a": "2", "b": "3", "c": "2", "fuser": "two"}, "a", "b", "c")
    await setup.orchestrator.run(ask("consilium/panel"))

    assert len(made) == 1


def test_rights_are_looked_at_once_for_each_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    sees = Access.sees

    def counted(access: Access, expert: ExpertCard) -> bool:
        asked.append(expert.id)
        return sees(access, expert)

    monkeypatch.setattr(Access, "sees", counted)
    cards = (card("a"), card("hidden", labels=frozenset({"legal"})), card("reader", roles=frozenset({ExpertRole.AGGREGATOR})))
    request = replace(ask(), access=PUBLIC)
    found = eligible(request, registry(*cards), Check(request, lambda _: HealthState.CLOSED))

    assert sorted(asked) == ["a", "hidden", "reader"]
    assert [expert.id for expert in found.experts] == ["a"]
    assert found.rejected == {"reader": "its role is aggregator only"}
