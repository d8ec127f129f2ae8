"""``/admin/api/strategies``, ``skills`` and ``manifest``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import httpx
import pytest

from api import middleware
from domain.errors import InvalidRequest
from routers.catalogue import RouterCatalogue
from tests.fakes.admin import AdminParts
from tests.fakes.services import FixedRouter

QUICK = {"id": "quick", "router": "random", "pick": {"kind": "top_k", "k": 1}, "aggregator": "first"}


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    return error


async def test_a_strategy_is_a_model_at_once(client: httpx.AsyncClient) -> None:
    """A created strategy answers chat requests without a restart."""
    created = await client.post("/strategies", json=QUICK)
    asked = {"model": "consilium/quick", "messages": [{"role": "user", "content": "algebra 3?"}]}
    answer = await client.post("http://localhost/v1/chat/completions", json=asked)

    assert created.status_code == 201
    assert answer.headers["x-consilium-strategy"] == "quick"


@pytest.mark.parametrize(
    ("change", "param", "told"),
    [
        ({"router": "skils"}, "router", "'skills'"),
        ({"aggregator": "fuze"}, "aggregator", "'fuse'"),
        ({"aggregator_expert": "goood"}, "aggregator_expert", "'good'"),
        ({"fallback_expert": "baad"}, "fallback_expert", "'bad'"),
        ({"router_options": {"keyword_expert": "goood"}}, "router_options.keyword_expert", "'good'"),
        ({"router_options": {"experts": ["bad", "goood"]}}, "router_options.experts[1]", "'good'"),
        ({"pick": {"kind": "topk"}}, "pick.kind", "'top_k'"),
        ({"max_call": 3}, "max_call", "'max_calls'"),
        ({"adjustments": {"boosts": {}}}, "adjustments.boosts", "'boost'"),
        ({"adjustments": {"deny": ["goood"]}}, "adjustments.deny[0]", "'good'"),
        ({"router": "skills", "adjustments": {"boost": {"goood": 0.5}}}, "adjustments.boost.goood", "'good'"),
        ({"adjustments": {"boost": {"good": 2}}}, "adjustments.boost.good", "less than or equal to 1"),
        ({"adjustments": {"price_weight": -1}}, "adjustments.price_weight", "greater than or equal to 0"),
        ({"adjustments": {"load_weight": 0.5}}, "adjustments", "the router 'random' scores nobody"),
        ({"effort": {"default": "hihg"}}, "effort.default", "'high'"),
        ({"effort": {"levels": {"low": {"mode": "mao"}}}}, "effort.levels.low.mode", "'moa'"),
    ],
)
async def test_an_unknown_name_in_a_strategy_is_refused_with_the_nearest(
    client: httpx.AsyncClient, change: dict[str, Any], param: str, told: str
) -> None:
    response = await client.post("/strategies", json={**QUICK, **change})

    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert told in error_of(response)["message"]


async def test_what_keeps_a_strategy_from_asking_too_many_is_stored_and_checked(client: httpx.AsyncClient) -> None:
    bounds = {"alone_from_accuracy": 0.95, "shed_from_load": 1.5}
    created = await client.post("/strategies", json={**QUICK, **bounds})
    refused = await client.post("/strategies", json={**QUICK, **bounds, "id": "other", "mode": "moa"})

    assert created.status_code == 201
    assert bounds.items() <= (await client.get("/strategies/quick")).json().items()
    assert (refused.status_code, error_of(refused)["param"]) == (400, "alone_from_accuracy")


async def test_efforts_are_stored_and_shown_as_they_were_written(client: httpx.AsyncClient) -> None:
    effort = {"default": "low", "from_reasoning_effort": True, "levels": {"high": {"k": 4, "thinking": "high"}}}
    created = await client.post("/strategies", json={**QUICK, "effort": effort})
    shown = (await client.get("/strategies/quick")).json()["effort"]

    assert created.status_code == 201
    assert shown["default"] == "low"
    assert shown["from_reasoning_effort"] is True
    assert {name: value for name, value in shown["levels"]["high"].items() if value is not None} == {"k": 4, "thinking": "high"}


async def test_adjustments_are_stored_shown_and_patched_one_by_one(client: httpx.AsyncClient) -> None:
    adjusted = {**QUICK, "router": "skills", "adjustments": {"deny": ["bad"], "boost": {"good": 0.25}, "price_weight": 0.5}}
    created = await client.post("/strategies", json=adjusted)
    patched = await client.patch("/strategies/quick", json={"adjustments": {"price_weight": 0.1, "boost": {"good": None}}})

    assert created.json()["adjustments"]["boost"] == {"good": 0.25}
    assert patched.json()["adjustments"] == {
        "allow": None, "deny": ["bad"], "boost": {}, "price_weight": 0.1, "load_weight": 0.0, "session_weight": 0.0,
    }  # fmt: skip
    asked = {"model": "consilium/quick", "messages": [{"role": "user", "content": "algebra 3?"}]}
    decision = (await client.post("http://localhost/v1/route", json=asked)).json()
    assert decision["detail"]["adjustments"] == {"price_weight": 0.1}
    assert "in the strategy's deny" in [expert["why"] for expert in decision["considered"]]


async def test_strategies_have_versions_like_experts(client: httpx.AsyncClient) -> None:
    """ETag counts up, an old If-Match is a 412, DELETE removes it."""
    changed = await client.patch("/strategies/panel", json={"pick": {"k": 3}})
    refused = await client.put("/strategies/panel", json=QUICK | {"id": "panel"}, headers={"if-match": '"1"'})
    removed = await client.delete("/strategies/panel", headers={"if-match": changed.headers["etag"]})

    assert changed.json()["pick"] == {"kind": "top_k", "k": 3, "threshold": 0.5}
    assert refused.status_code == 412
    assert removed.status_code == 204
    assert (await client.get("/strategies/panel")).status_code == 404


class PickyRouter(FixedRouter):
    """Takes the option ``floor`` alone."""

    def check_options(self, options: Mapping[str, Any]) -> None:
        for name in options:
            if name != "floor":
                raise InvalidRequest(f"router option {name!r} is unknown; did you mean 'floor'?", param=f"router_options.{name}")


async def test_the_router_checks_its_options_before_they_are_stored(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """POST, PATCH and a manifest alike: what every request would be refused for is refused at once."""
    assert parts.services is not None
    parts.services.routers = cast(Any, RouterCatalogue([PickyRouter()]))
    wrong, right = {"router_options": {"flor": 0.2}}, {"router_options": {"floor": 0.2}}
    strategy = {**QUICK, "router": "fixed"}

    refused = [
        await client.post("/strategies", json={**strategy, **wrong}),
        await client.patch("/strategies/panel", json=wrong),
        await client.post("/manifest", json={"yaml": "strategies:\n- {id: quick, router: fixed, router_options: {flor: 0.2}}\n"}),
    ]

    assert [response.status_code for response in refused] == [400, 400, 400]
    assert {error_of(response)["param"] for response in refused} == {"router_options.flor"}
    assert (await client.post("/strategies", json={**strategy, **right})).status_code == 201


@pytest.mark.parametrize("options", [{"keyword_expert": "worse"}, {"experts": ["good", "worse"]}])
async def test_an_expert_in_a_routers_options_cannot_be_removed(client: httpx.AsyncClient, options: dict[str, Any]) -> None:
    await client.post("/strategies", json={**QUICK, "router_options": options})

    response = await client.delete("/experts/worse")

    assert response.status_code == 409
    assert "quick" in error_of(response)["message"]


async def test_a_skill_has_a_life_of_its_own(client: httpx.AsyncClient) -> None:
    """Created, read with a tag, described anew, refused with an old tag, removed; spaces in its name are no trouble."""
    created = await client.post("/skills", json={"name": "word games", "description": "x"})
    tag = created.headers["etag"]
    described = await client.patch("/skills/word games", json={"description": "Anagrams"}, headers={"if-match": tag})
    refused = await client.put("/skills/word games", json={"description": "y"}, headers={"if-match": tag})
    removed = await client.delete("/skills/word games")

    assert created.status_code == 201
    assert created.headers["location"] == "/admin/api/skills/word%20games"
    assert described.json() == {"name": "word games", "description": "Anagrams"}
    assert refused.status_code == 412
    assert removed.status_code == 204


async def test_a_skill_exists_once(client: httpx.AsyncClient) -> None:
    assert (await client.post("/skills", json={"name": "cooking"})).status_code == 409


async def test_a_skill_in_use_cannot_be_removed(client: httpx.AsyncClient) -> None:
    response = await client.delete("/skills/algebra")

    assert response.status_code == 409
    assert "expert good" in error_of(response)["message"]


async def test_put_makes_a_skill(client: httpx.AsyncClient) -> None:
    assert (await client.put("/skills/music", json={})).status_code == 201
    assert [row["name"] for row in (await client.get("/skills")).json()["data"]] == ["algebra", "cooking", "music", "roman numerals"]


async def test_the_manifest_reads_back_the_same(client: httpx.AsyncClient) -> None:
    """What GET gives, POST takes, and finds nothing to change."""
    text = (await client.get("/manifest")).text
    changes = (await client.post("/manifest", json={"yaml": text}, params={"prune": "true"})).json()

    assert changes["created"] == changes["updated"] == changes["removed"] == []
    assert "expert good" in changes["unchanged"]


async def test_a_dry_run_changes_nothing(client: httpx.AsyncClient, parts: AdminParts) -> None:
    text = "experts:\n- {id: sql, backend: embedded, model: sql}\n"

    dry = (await client.post("/manifest", json={"yaml": text}, params={"dry_run": "true"})).json()
    missing = await client.get("/experts/sql")
    real = (await client.post("/manifest", json={"yaml": text})).json()

    assert dry["created"] == real["created"] == ["expert sql"]
    assert missing.status_code == 404
    assert parts.services is not None
    assert "sql" in parts.services.directory.snapshot().experts


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("experts: [", "line"),
        ("experts:\n- {id: sql, backend: embeded, model: sql}\n", "'embedded'"),
        ("expert: []\n", "'experts'"),
        ("strategies:\n- {id: quick, router: randam}\n", "'random'"),
        ("strategies:\n- {id: quick, fallback_expert: goood}\n", "'good'"),
        ("strategies:\n- {id: quick, router_options: {experts: [goood]}}\n", "'good'"),
        ("experts:\n- {id: sql, backend: embedded, model: sql, aggregation_prompt: compcat}\n", "'compact'"),
        ("experts:\n- {id: sql, backend: embedded, model: sql, skills: [algebraa]}\n", "'algebra'"),
    ],
)
async def test_a_wrong_manifest_changes_nothing_and_says_where(client: httpx.AsyncClient, text: str, told: str) -> None:
    response = await client.post("/manifest", json={"yaml": "skills: {music: ''}\n" + text})

    assert response.status_code == 400
    assert told in error_of(response)["message"]
    assert (await client.get("/skills/music")).status_code == 404


class SlowIndex:
    """Follows when the test says so."""

    def __init__(self) -> None:
        self.asked = asyncio.Queue[int]()
        self.there = asyncio.Event()

    async def follows(self, version: int) -> None:
        self.asked.put_nowait(version)
        await self.there.wait()


async def test_the_answer_to_a_change_waits_until_routing_follows(client: httpx.AsyncClient, parts: AdminParts) -> None:
    index = SlowIndex()
    assert parts.services is not None
    parts.services.index_holder = cast(Any, index)
    parts.services.readiness.done("index")

    adding = asyncio.create_task(client.post("/skills", json={"name": "chess"}))
    version = await index.asked.get()
    assert version == parts.services.directory.snapshot().version
    assert (await client.get("/skills/chess")).status_code == 200  # reading waits for nothing
    assert not adding.done()
    index.there.set()

    assert (await adding).status_code == 201


async def test_a_slow_index_does_not_hold_an_answer_back_for_long(
    client: httpx.AsyncClient, parts: AdminParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "LIVE_WITHIN_S", 0.01)
    assert parts.services is not None
    parts.services.index_holder = cast(Any, SlowIndex())
    parts.services.readiness.done("index")

    assert (await client.post("/skills", json={"name": "chess"})).status_code == 201
