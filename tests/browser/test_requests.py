"""Finding the request that went wrong, and what is done about it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from domain.errors import ExpertTimeout
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision, RoutingQuery, ScoredExpert
from tests.browser.conftest import Person
from tests.fakes.admin import AdminParts
from tests.fakes.services import FixedRouter
from tests.fakes.workers import Fails


def ask(url: str, question: str, model: str = "auto", request_id: str = "") -> httpx.Response:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": question}]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers={"x-request-id": request_id} if request_id else {}, timeout=30)


def test_requests_are_found_by_expert_outcome_and_id(steward: Person, parts: AdminParts) -> None:
    ask(steward.url, "algebra 1?", "good", "first")
    ask(steward.url, "algebra 2?", "consilium/panel", "second")
    parts.pool.scripted._repeated["worse"] = Fails(ExpertTimeout("it took too long"))
    assert ask(steward.url, "algebra 3?", "worse", "third").status_code == 502
    steward.open("/admin/requests?q=third")
    while steward.page.get_by_role("link", name="algebra 3?").count() == 0:  # written behind the request's back
        steward.open("/admin/requests?q=third")
    steward.open("/admin/requests")
    steward.look("requests")
    steward.page.get_by_label("Outcome").select_option("error")
    steward.page.wait_for_url("**status=error*")
    assert steward.page.get_by_role("row").count() == 2
    steward.sees("all_experts_failed")
    steward.open("/admin/requests?expert=good")
    steward.page.get_by_role("link", name="algebra 1?").wait_for()
    assert steward.page.get_by_role("link", name="algebra 3?").count() == 0


def test_requests_are_found_by_strategy_error_feedback_and_time(steward: Person, parts: AdminParts) -> None:
    ask(steward.url, "algebra 1?", "consilium/panel", "one")
    parts.pool.scripted._repeated["worse"] = Fails(ExpertTimeout("it took too long"))
    ask(steward.url, "algebra 2?", "worse", "two")
    ask(steward.url, "algebra 3?", "good", "three")
    steward.open("/admin/requests?q=three")
    while steward.page.get_by_role("link", name="algebra 3?").count() == 0:
        steward.open("/admin/requests?q=three")
    steward.page.get_by_role("link", name="algebra 3?").click()
    steward.page.get_by_label("The answer was").select_option("wrong")
    steward.click("Say so")
    steward.sees("Noted, and learnt from.")
    link = steward.page.get_by_role("link", name="algebra", exact=False)
    for label, value, found in (("Strategy", "panel", "algebra 1?"), ("Feedback", "bad", "algebra 3?"), ("Outcome", "error", "algebra 2?")):
        steward.open("/admin/requests")
        steward.page.get_by_label(label, exact=True).select_option(value)
        steward.page.wait_for_url("**/requests?**")
        assert link.all_inner_texts() == [found], label
    steward.open("/admin/requests")
    steward.page.get_by_label("Error code").fill("all_experts_failed")
    steward.click("Filter")
    assert link.all_inner_texts() == ["algebra 2?"]
    steward.click("Clear", "link")
    steward.page.get_by_label("Until (UTC)").fill("2020-01-01T00:00")
    steward.click("Filter")
    steward.sees("No request is like that")


def test_an_answer_by_fallback_is_marked_as_one_with_the_reason(steward: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    why = "good is the strategy's fallback: the query is like no known skill (best similarity 0.11, needed 0.33)."

    async def like_nothing_known(self: FixedRouter, query: RoutingQuery, snapshot: RegistrySnapshot) -> RoutingDecision:
        return RoutingDecision("skills", ("good",), (ScoredExpert("good", 0.4, True, "overall 0.40 of 10"),), why, fallback=True)

    monkeypatch.setattr(FixedRouter, "route", like_nothing_known)
    assert ask(steward.url, "Hello", "consilium/panel", "fallen").headers["x-consilium-fallback"] == why
    steward.open("/admin/requests?q=fallen")
    while steward.page.get_by_role("link", name="Hello").count() == 0:
        steward.open("/admin/requests?q=fallen")
    steward.page.get_by_role("link", name="Hello").click()
    decision = steward.page.get_by_role("region", name="The decision")
    decision.get_by_text("fallback", exact=True).wait_for()
    assert why in decision.inner_text()
    steward.look("request-fallback")


def test_a_request_is_explained_asked_again_judged_and_forgotten(steward: Person) -> None:
    ask(steward.url, "algebra 2?", "consilium/panel", "asked")
    steward.open("/admin/requests?q=asked")
    while steward.page.get_by_role("link", name="algebra 2?").count() == 0:
        steward.open("/admin/requests?q=asked")
    steward.page.get_by_role("link", name="algebra 2?").click()
    steward.sees("Where the time went")
    steward.sees("in the registry's order")
    steward.look("request")
    steward.page.get_by_label("The answer was").select_option("wrong")
    steward.click("Say so")
    steward.sees("Noted, and learnt from.")
    steward.click("Take back")
    steward.sees("Taken back.")
    steward.page.get_by_label("Of", exact=True).select_option("good")
    steward.click("Replay")
    steward.sees("Instead of")
    steward.page.get_by_role("heading", level=1).get_by_text("good").wait_for()
    steward.click("Forget it")
    steward.sees("1 request is forgotten.")
    steward.click("What is stored")
    steward.page.get_by_label("Forget requests older than (days)").fill("0")
    steward.click("Forget them")
    steward.sees("No request yet")
    steward.look("requests-empty")
