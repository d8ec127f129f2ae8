"""``consilium route map`` and ``/admin/api/category-map``: the category router's map of the registry, under a budget."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.evaluation import QuestionOutcome
from experts_registry.database import Database
from experts_registry.stores import Stores
from tests.fakes.admin import CARDS, QUESTIONS, AdminParts
from tests.integration.admin.conftest import Consilium

SIZES = {"good": 7.0, "bad": 1.0, "worse": 2.0}
RIGHT = {"good": {"algebra", "roman numerals"}, "bad": {"algebra"}, "worse": {"roman numerals"}}
"""Who answers what: the large one everything, the small ones one thing each."""


@pytest.fixture
def filled(filled: Path, tmp_path: Path) -> Path:
    """The registry with sizes, a category per skill, and what everybody answers."""
    path = tmp_path / "measured" / "consilium.db"
    path.parent.mkdir()
    path.write_bytes(filled.read_bytes())

    async def fill() -> None:
        database = Database.connect(f"sqlite+aiosqlite:///{path}")
        stores = Stores.of(database)
        for card in CARDS:
            await stores.experts.replace(replace(card, parameters_b=SIZES[card.id], memory_mb=1000 * SIZES[card.id]))
        await stores.questions.add([replace(q, category=q.skills[0]) for q in QUESTIONS], source="test")
        outcomes = [
            QuestionOutcome(name, question.id, question.skills, question.skills[0], correct=question.skills[0] in skills)
            for name, skills in RIGHT.items()
            for question in QUESTIONS
        ]
        await stores.profiles.import_outcomes(outcomes, [])
        await database.close()

    asyncio.run(fill())
    return path


def of_category(found: dict[str, Any]) -> dict[str, str]:
    return {row["category"]: row["expert"] for row in found["categories"]}


def test_the_map_keeps_within_its_budget(consilium: Consilium) -> None:
    free = json.loads(consilium("route", "map", "--json").out)
    tight = json.loads(consilium("route", "map", "--budget-b", "3", "--json").out)

    assert of_category(free) == {"algebra": "good", "roman numerals": "good"}
    assert free["expected_score"] > tight["expected_score"]
    assert of_category(tight) == {"algebra": "bad", "roman numerals": "worse"}
    assert tight["total"] == 3.0
    assert tight["average_active_b"] == pytest.approx(1.5)
    assert [row["expert"] for row in tight["experts"] if not row["kept"]] == ["good"]


def test_a_budget_of_memory_counts_megabytes(consilium: Consilium) -> None:
    found = json.loads(consilium("route", "map", "--budget-mb", "1500", "--json").out)

    assert set(of_category(found).values()) == {"bad"}
    assert (found["unit"], found["total"], found["average_active_b"]) == ("MB", 1000.0, 1.0)


def test_people_read_who_serves_what_and_what_it_costs(consilium: Consilium) -> None:
    ran = consilium("route", "map", "--budget-b", "3")

    assert ran.code == 0, ran.err
    for told in ("algebra", "roman numerals", "worse", "budget 3 b, kept experts take 3 b, 1.5 b active on average", "confidence"):
        assert told in ran.out, told


def test_a_question_is_still_routed(consilium: Consilium) -> None:
    """``route map`` is a command beside ``route``, not instead of it."""
    assert "router fixed" in consilium("route", "algebra 3?").out
    assert "router fixed" in consilium("route", "--", "map").out


def test_two_budgets_are_refused(consilium: Consilium) -> None:
    ran = consilium("route", "map", "--budget-b", "3", "--budget-mb", "3")

    assert ran.code == 2
    assert "contradict each other" in ran.err


def test_a_budget_below_everybody_says_what_the_smallest_takes(consilium: Consilium) -> None:
    ran = consilium("route", "map", "--budget-b", "0.5")

    assert ran.code == 2
    assert "no expert fits a budget of 0.5 b; the smallest, 'bad', takes 1" in ran.err


@pytest.mark.parametrize(("query", "told"), [("budget=3", "budget_b"), ("budget_b=-1", "budget_b"), ("budget_b=1&budget_mb=1", "not both")])
async def test_what_is_wrong_in_a_query_is_told(client: httpx.AsyncClient, query: str, told: str) -> None:
    answer = await client.get(f"/category-map?{query}")

    assert answer.status_code == 400
    assert told in answer.text


async def test_an_unknown_generalist_is_told_before_anything_is_computed(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.endpoints.admin.category_map.report", None)
    answer = await client.get("/category-map?generalist=god")

    assert answer.status_code == 400
    assert "did you mean 'good'" in answer.text


class TestUnmeasured:
    """A registry without outcomes."""

    @pytest.fixture
    def filled(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        from tests.fakes.admin import registry_file

        return registry_file(tmp_path_factory.mktemp("unmeasured"))

    async def test_it_is_told_what_to_do(self, client: httpx.AsyncClient, parts: AdminParts) -> None:
        answer = await client.get("/category-map")

        assert answer.status_code == 400
        assert "consilium profile run" in answer.text
