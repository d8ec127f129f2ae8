"""What strategies are worth, started and read on a page."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.browser.conftest import Person
from tests.fakes.admin import AdminParts
from tests.fakes.services import ADMIN_KEY
from tests.fakes.workers import Stalls

SUBJECTS = ("a ladder against a wall", "two trains on one track", "the price of seven apples", "a clock that is slow")
QUESTIONS = "\n".join(
    [json.dumps({"question": f"{subject}, as algebra {n}?", "answer": str(n), "skills": ["algebra"]}) for n, subject in enumerate(SUBJECTS)]
    + [json.dumps({"question": f"In which century was {event}?", "answer": "17", "skills": ["history"]}) for event in ("Rome", "the wheel")]
)


def evaluate(steward: Person, name: str) -> None:
    steward.open("/admin/evaluation/new")
    steward.field("Name").fill(name)
    steward.field("Labelled questions").fill(QUESTIONS)
    steward.click("Begin")
    steward.page.get_by_role("heading", level=1, name=name).wait_for()


def test_strategies_are_evaluated_read_and_compared(steward: Person, registry: Path) -> None:
    steward.expected = ["400"]
    for number, expert in enumerate(("good", "bad", "worse"), start=1):  # so that answers cost something
        body = {"price": {"prompt": float(number), "completion": float(number)}}
        httpx.patch(f"{steward.url}/admin/api/experts/{expert}", json=body, headers={"authorization": f"Bearer {ADMIN_KEY}"})
    steward.open("/admin/evaluation")
    steward.look("evaluation-empty")
    steward.open("/admin/evaluation/new")
    steward.field("Labelled questions").fill("{broken")
    steward.click("Begin")
    steward.page.locator(".problem").first.wait_for()
    evaluate(steward, "before the change")
    steward.sees("Cost and quality")
    steward.sees("Every way")
    steward.sees("best single")
    steward.look("evaluation-report")
    evaluate(steward, "after it")
    steward.open("/admin/evaluation")
    steward.look("evaluation")
    steward.click("Compare")
    steward.page.get_by_role("heading", name="Two reports").wait_for()
    steward.look("evaluation-compare")
    assert len(list((registry / "reports").glob("*.json"))) == 2


def test_an_evaluation_is_watched_stopped_and_stands_in_the_audit_log(steward: Person, parts: AdminParts) -> None:
    parts.pool.scripted._repeated["good"] = Stalls()
    steward.open("/admin/evaluation/new")
    steward.field("Name").fill("too long")
    steward.field("Labelled questions").fill(QUESTIONS)
    steward.click("Begin")
    steward.page.get_by_role("progressbar").wait_for()
    steward.look("evaluation-running")
    steward.click("Stop")
    steward.page.get_by_label("The run").get_by_text("cancelled", exact=True).wait_for()
    steward.open("/admin/audit")
    steward.sees("/admin/api/evaluations")


def test_a_report_is_deleted_after_a_question(steward: Person) -> None:
    evaluate(steward, "in vain")
    steward.click("Delete")
    steward.page.get_by_role("dialog").get_by_role("button", name="Keep it").click()
    steward.click("Delete")
    steward.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    steward.sees("The report is deleted.")
    steward.sees("No report yet")


def test_what_the_api_refuses_of_an_evaluation_is_told_beside_the_field(steward: Person) -> None:
    steward.expected = ["400"]
    steward.open("/admin/evaluation/new")
    steward.field("Name").fill("x")
    steward.field("Labelled questions").fill(QUESTIONS)
    steward.field("Calls of votes and samples").fill("99")
    steward.click("Begin")
    steward.page.locator(".field", has=steward.field("Calls of votes and samples")).get_by_text("16").wait_for()
    assert steward.field("Name").input_value() == "x"
    steward.look("evaluation-refused")
