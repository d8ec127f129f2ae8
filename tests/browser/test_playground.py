"""Trying a question, and seeing why it went where it went."""

from __future__ import annotations

from tests.browser.conftest import Person
from tests.fakes.admin import AdminParts
from tests.fakes.workers import Stalls


def test_two_strategies_answer_side_by_side_and_are_explained(steward: Person) -> None:
    steward.open("/admin/playground")
    steward.page.get_by_label("Question").fill("algebra 3?")
    steward.click("Compare with another")
    steward.page.get_by_label("Model 1").select_option("consilium/panel")
    steward.page.get_by_label("Model 2").select_option("good")
    steward.click("Ask")
    steward.page.locator(".pane[data-done=yes]").nth(1).wait_for()
    assert steward.page.locator(".pane .answer").nth(0).inner_text() == "no idea"
    panes = steward.page.locator(".pane")
    panes.nth(0).get_by_role("heading", name="The decision").wait_for()
    panes.nth(1).get_by_role("heading", name="Where the time went").wait_for()
    assert panes.nth(1).locator(".answer").first.inner_text() == "3"
    steward.look("playground")
    panes.nth(1).get_by_text("curl", exact=True).click()
    assert '"model": "good"' in panes.nth(1).locator("pre").first.inner_text()
    panes.nth(1).get_by_text("Python", exact=True).click()
    assert "model='good'" in panes.nth(1).locator("pre").nth(1).inner_text()
    panes.nth(1).get_by_role("button", name="Copy as curl").click()
    panes.nth(1).get_by_role("button", name="Copied").wait_for()


def test_what_the_api_refuses_is_told_where_the_answer_would_stand(steward: Person) -> None:
    steward.expected = ["400"]
    steward.open("/admin/playground?model=good")
    steward.page.get_by_label("Question").fill("algebra 3?")
    steward.page.get_by_text("Options", exact=True).click()
    steward.page.get_by_label("Experts (k)").fill("3")
    steward.page.keyboard.press("Control+Enter")
    steward.page.get_by_role("alert").get_by_text("k").wait_for()
    steward.look("playground-refused")


def test_an_answer_is_read_while_it_is_written_and_can_be_stopped(steward: Person, parts: AdminParts) -> None:
    parts.pool.scripted._repeated["good"] = Stalls(pieces=("The first", " words"))
    steward.open("/admin/playground?model=good")
    steward.page.get_by_label("Question").fill("algebra 3?")
    steward.click("Ask")
    steward.page.locator(".pane .answer").get_by_text("The first words").wait_for()
    steward.look("playground-streaming")
    steward.click("Stop")
    steward.page.get_by_role("button", name="Stop").wait_for(state="hidden")
    assert "The first words" in steward.page.locator(".pane .answer").inner_text()
