"""Routers in a running service: the zoo with what was measured of it, its experts, a real database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.bootstrap import LEARNED_ROUTERS
from tests.fakes.learned import NearestMean
from tests.integration.api.test_bootstrap import WAIT_S, WordEncoder, running, settings_in, until_ready
from zoo import release

NUMERAL = "Write the Roman numeral MCMXCIV as a number."
ROUTERS = ("nearest-mean", "skills", "menu", "instruction", "budget", "fixed", "random", *LEARNED_ROUTERS)


def routed(question: str = NUMERAL, **options: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": question}], "consilium": options}


async def decided(http: httpx.AsyncClient, question: str = NUMERAL, **options: Any) -> dict[str, Any]:
    response = await http.post("/v1/route", json=routed(question, **options))
    assert response.status_code == 200, response.text
    decision: dict[str, Any] = response.json()
    return decision


@pytest.fixture(autouse=True)
def learned_router(monkeypatch: pytest.MonkeyPatch) -> None:
    """One estimator beside those of the service, over an encoder that is there at once."""
    monkeypatch.setattr("api.bootstrap.LEARNED_ROUTERS", {**LEARNED_ROUTERS, "nearest-mean": NearestMean.with_options})
    monkeypatch.setattr("api.bootstrap.Encoder", WordEncoder)


async def test_a_learned_router_is_fitted_at_its_first_use_and_follows_what_is_measured(tmp_path: Path) -> None:
    """1. by the zoo's outcomes, 2. after outcomes say the opposite, without a restart, 3. without an expert that was removed."""
    async with running(settings_in(tmp_path, seed_zoo=True)) as http:
        await until_ready(http)
        by_zoo = await decided(http, router="nearest-mean", router_options={"k": 5}, k=1)
        near = by_zoo["detail"]["nearest"]
        numerals = [question["id"] for question in release.labelled_questions() if question["category"] == "numerals"]
        opposite = [
            {"expert_id": expert, "question_id": question_id, "skills": ["roman numerals"], "correct": expert == "facts"}
            for question_id in numerals
            for expert in ("numerals", "facts")
        ]
        imported = await http.post("/admin/api/profile-runs/import", json={"outcomes": opposite})
        async with asyncio.timeout(WAIT_S):
            while (after := await decided(http, router="nearest-mean", router_options={"k": 5}, k=1))["selected"] != ["facts"]:
                await asyncio.sleep(0.1)
        await http.delete("/admin/api/experts/facts")
        without = await decided(http, router="nearest-mean", router_options={"k": 5}, k=1)

    assert by_zoo["selected"] == ["numerals"]
    assert by_zoo["skills"]
    assert len(near) == 5
    assert imported.status_code == 201, imported.text
    assert after["detail"]["model"]["registry_version"] > by_zoo["detail"]["model"]["registry_version"]
    assert "facts" not in [expert["expert"] for expert in without["considered"]]


async def test_every_router_decides_by_request_and_counts_the_calls_that_it_makes(tmp_path: Path) -> None:
    """The zoo's experts can neither write instructions nor read menus: what comes of that is a decision all the same."""
    options: dict[str, dict[str, Any]] = {
        "menu": {"menu_expert": "generalist"},
        "instruction": {"instruction_expert": "generalist", "alpha": 0.2},
        "budget": {"base": "nearest-mean", "max_memory_mb": 1},
        "fixed": {"experts": ["calendar", "numerals"]},
        "category": {"budget_b": 0.006},
    }
    found: dict[str, dict[str, Any]] = {}
    async with running(settings_in(tmp_path, seed_zoo=True)) as http:
        await until_ready(http)
        for router in ROUTERS:
            found[router] = await decided(http, router=router, router_options=options.get(router, {}), k=1, seed=1)
        asked = routed(router="menu", router_options=options["menu"], k=1)
        answered = await http.post("/v1/chat/completions", json=asked, headers={"x-consilium-explain": "1"})
        unknown = await http.post("/v1/route", json=routed(router="menus"))

    assert [found[router]["router"] for router in ROUTERS] == list(ROUTERS)
    assert [found[router]["selected"] for router in ("nearest-mean", "skills", "menu", "budget")] == [["numerals"]] * 4
    assert found["fixed"]["selected"] == ["calendar"]
    assert [found[router]["selected"] for router in ("neighbours", "ridge", "category")] == [["numerals"]] * 3
    assert found["category"]["category"] == "numerals"
    assert set(found["category"]["detail"]["kept"]) < {expert["expert"] for expert in found["category"]["considered"]}
    assert "so skills were found by similarity" in found["menu"]["reason"]
    roles = [call["role"] for call in answered.json()["consilium"]["calls"]]
    assert roles == ["annotator", "candidate"]
    assert answered.headers["x-consilium-calls"] == "2"
    assert "did you mean 'menu'" in unknown.json()["error"]["message"]


async def test_a_session_leans_towards_who_answered_it_where_the_strategy_wants_that(tmp_path: Path) -> None:
    leaning = {"id": "leaning", "pick": {"kind": "top_k", "k": 1}, "adjustments": {"session_weight": 1.0}}
    asked = {**routed(), "model": "consilium/leaning"}
    async with running(settings_in(tmp_path, seed_zoo=True)) as http:
        await until_ready(http)
        assert (await http.post("/admin/api/strategies", json=leaning)).status_code == 201
        first = await http.post("/v1/chat/completions", json=asked, headers={"x-session-id": "s"})
        other = {"model": "consilium/leaning", "messages": [{"role": "user", "content": "What is 12 plus 30?"}]}
        with_session = await http.post("/v1/route", json=other, headers={"x-session-id": "s"})
        without = await http.post("/v1/route", json=other)

    assert first.headers["x-consilium-experts"] == "numerals"
    assert with_session.json()["selected"] == ["numerals"]
    assert "+1.00 session" in with_session.json()["considered"][0]["why"]
    assert without.json()["selected"] != ["numerals"]
