"""Cascades and feedback on real models, in a real process."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI

from tests.e2e.processes import ADMIN_KEY

pytestmark = pytest.mark.timeout(300)

OPTIONS = {"experts": ["generalist", "arithmetic"], "confidence": "logprob", "threshold": 0.9}


@pytest.fixture(scope="module", name="admin")
def _admin(zoo: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=zoo, headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=120) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def _strategy(admin: httpx.Client) -> None:
    strategy = {"id": "thrifty", "router": "cascade", "router_options": OPTIONS, "pick": {"kind": "top_k", "k": 2}}
    admin.post("/admin/api/strategies", json=strategy).raise_for_status()


def ask(client: OpenAI, text: str, **options: object) -> httpx.Response:
    body = {"model": "consilium/thrifty", "messages": [{"role": "user", "content": text}], "consilium": {"explain": True}, **options}
    return httpx.post(f"{client.base_url}chat/completions", json=body, timeout=60).raise_for_status()


def test_the_models_own_log_probabilities_decide_who_answers(client: OpenAI) -> None:
    """The generalist knows capitals better than sums; whatever is asked, no log-probabilities are passed on."""
    by = {text: ask(client, text) for text in ("What is 417 + 268?", "What is 30 + 12?", "What is the capital of Spain?")}
    told = {text: response.json()["consilium"] for text, response in by.items()}

    assert by["What is 417 + 268?"].json()["choices"][0]["message"]["content"] == "685"
    assert told["What is 417 + 268?"]["answered_by"] == "arithmetic"
    for text, response in by.items():
        first = told[text]["calls"][0]
        assert first["expert"] == "generalist"
        assert 0 < first["confidence"] <= 1
        assert (told[text]["answered_by"] == "generalist") is (first["confidence"] >= OPTIONS["threshold"])
        assert response.json()["choices"][0]["logprobs"] is None


def test_a_threshold_is_found_within_a_cost(admin: httpx.Client) -> None:
    body = {"skills": ["addition", "subtraction"], "limit": 40, "escalation_rate": 0.6, "dry_run": True}
    found = admin.post("/admin/api/strategies/thrifty/calibrate", json=body).raise_for_status().json()

    assert found["num_questions"] == 40
    assert found["chosen"]["escalation_rate"] <= 0.6
    assert found["curve"][0]["accuracy"] < found["chosen"]["accuracy"] <= found["last_alone"]["accuracy"]


def test_feedback_reaches_the_next_decision_and_leaves_it_when_it_is_taken_back(client: OpenAI, admin: httpx.Client) -> None:
    answered = client.chat.completions.with_raw_response.create(model="auto", messages=[{"role": "user", "content": "What is 30 + 12?"}])
    said = httpx.post(f"{client.base_url}feedback", json={"request_id": answered.headers["x-request-id"], "correct": True}, timeout=30)
    route = {"model": "auto", "messages": [{"role": "user", "content": "What is 31 + 12?"}]}

    def why() -> str:
        considered = httpx.post(f"{client.base_url}route", json=route, timeout=30).json()["considered"]
        return str(next(scored["why"] for scored in considered if scored["expert"] == "arithmetic"))

    assert said.json()["scores"] == {"arithmetic": 1.0}
    assert "feedback addition 1.00 of 1" in why()
    admin.post(f"/admin/api/feedback/{said.json()['id']}/rollback").raise_for_status()
    assert "feedback" not in why()
    metrics = httpx.get(str(client.base_url).replace("/v1/", "/metrics"), timeout=30).text
    assert "consilium_feedback_rolled_back_total 1.0" in metrics
