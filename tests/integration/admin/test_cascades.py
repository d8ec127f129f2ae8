"""A cascade from its strategy to its answer and its threshold, over HTTP and from the command line."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.fakes.admin import AdminParts, ScriptedPool
from tests.fakes.services import ADMIN_KEY
from tests.integration.admin.conftest import Consilium

CASCADE = {
    "id": "thrifty",
    "router": "cascade",
    "router_options": {"base": "fixed", "experts": ["bad", "good"], "threshold": 0.2},
    "pick": {"kind": "top_k", "k": 2},
    "aggregator": "first",
}


def half_right(call: object) -> str:
    """Sure and right about even numbers, unsure about odd ones."""
    text, seed = str(call.messages[-1]["content"]), call.params.get("seed", 0)  # type: ignore[attr-defined]
    number = int(text.rstrip("?").split()[-1])
    return str(number) if number % 2 == 0 else f"perhaps {seed}"


def always_right(call: object) -> str:
    return str(call.messages[-1]["content"]).rstrip("?").split()[-1]  # type: ignore[attr-defined]


SCRIPT = {"bad": half_right, "good": always_right, "worse": "none at all"}


@pytest.fixture
def parts() -> AdminParts:
    return AdminParts(pool=ScriptedPool(SCRIPT))


async def ask(client: httpx.AsyncClient, text: str) -> httpx.Response:
    body = {"model": "consilium/thrifty", "messages": [{"role": "user", "content": text}], "consilium": {"explain": True}}
    return await client.post("http://localhost/v1/chat/completions", json=body)


async def test_headers_and_explanation_tell_each_call_with_its_confidence_and_why(client: httpx.AsyncClient) -> None:
    assert (await client.post("/strategies", json=CASCADE)).status_code == 201

    sure, unsure = await ask(client, "algebra 2?"), await ask(client, "algebra 3?")

    assert sure.json()["choices"][0]["message"]["content"] == "2"
    assert sure.headers["x-consilium-cascade"] == "bad 1.00 accepted"
    assert sure.headers["x-consilium-experts"] == "bad"
    assert unsure.json()["choices"][0]["message"]["content"] == "3"
    assert unsure.headers["x-consilium-cascade"] == "bad 0.00 escalated, good accepted"
    assert unsure.headers["x-consilium-experts"] == "good, bad"
    assert unsure.headers["x-consilium-aggregator"] == "cascade:good"
    assert unsure.headers["x-consilium-calls"] == "4"
    told = unsure.json()["consilium"]
    assert told["answered_by"] == "good"
    assert [(call["expert"], call["role"], call["stage"], call["confidence"]) for call in told["calls"]] == [
        *[("bad", "candidate", 1, 0.0)] * 3,
        ("good", "candidate", 2, None),
    ]
    assert "below 0.2, so the next expert was asked" in told["calls"][0]["note"]


async def test_the_threshold_is_chosen_from_labelled_questions_and_kept(client: httpx.AsyncClient) -> None:
    await client.post("/strategies", json=CASCADE)

    dry = (await client.post("/strategies/thrifty/calibrate", json={"dry_run": True})).json()
    within = (await client.post("/strategies/thrifty/calibrate", json={"escalation_rate": 0.5})).json()
    stored = (await client.get("/strategies/thrifty")).json()

    assert (dry["stored"], dry["num_questions"], dry["threshold_before"]) == (False, 8, 0.2)
    assert within["chosen"]["accuracy"] == 1.0
    assert within["chosen"]["escalation_rate"] == 0.5
    assert within["last_alone"]["accuracy"] == 1.0
    assert stored["router_options"]["threshold"] == pytest.approx(within["chosen"]["threshold"])
    assert stored["router_options"]["experts"] == ["bad", "good"]


@pytest.mark.parametrize(
    ("strategy", "body", "told"),
    [
        ("auto", {}, "only a cascade has a threshold"),
        ("thrifty", {"target_cost": 0.5, "escalation_rate": 0.5}, "one target"),
        ("thrifty", {"escalation_rate": 0.0, "target_cost": None, "skills": ["algebr"]}, "'algebra'"),
        ("thrifty", {"target_cost": 0.0001}, "no threshold meets the target"),
        ("thrifty", {"escalation": 0.5}, "'escalation_rate'"),
    ],
)
async def test_what_cannot_be_calibrated_is_told(client: httpx.AsyncClient, strategy: str, body: dict[str, object], told: str) -> None:
    await client.post("/strategies", json=CASCADE)
    refused = await client.post(f"/strategies/{strategy}/calibrate", json=body)

    assert refused.status_code == 400
    assert told in refused.json()["error"]["message"]


async def test_a_strategy_that_never_cascades_says_so(client: httpx.AsyncClient) -> None:
    await client.post("/strategies", json={**CASCADE, "router_options": {"experts": ["bad"]}})
    refused = await client.post("/strategies/thrifty/calibrate", json={})

    assert refused.status_code == 400
    assert "leads to no cascade of two or more experts" in refused.json()["error"]["message"]


async def test_wrong_options_of_a_cascade_are_refused_when_it_is_stored(client: httpx.AsyncClient) -> None:
    refused = await client.post("/strategies", json={**CASCADE, "router_options": {"confidence": "judge", "judge_expert": "goood"}})

    assert refused.status_code == 400
    assert "'good'" in refused.json()["error"]["message"]


def test_the_command_line_calibrates_and_asks(consilium: Consilium, url: str) -> None:
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {ADMIN_KEY}"}) as http:
        assert http.post("/admin/api/strategies", json=CASCADE).status_code == 201

    ran = consilium("strategies", "calibrate", "thrifty", "--escalation-rate", "0.5")
    asked = consilium("ask", "algebra 3?", "--model", "consilium/thrifty", "--explain")
    told = json.loads(consilium("strategies", "calibrate", "consilium/thrifty", "--dry-run", "--json").out)

    assert ran.code == 0, ran.err
    assert "chosen" in ran.out
    assert "stored: threshold" in ran.out
    assert asked.out.startswith("3\n")
    assert "confidence 0.00" in " ".join(asked.out.split())
    assert told["strategy"] == "thrifty"
