"""What strategies are worth, started and read on a page."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.browser.conftest import Person
from tests.fakes.services import ADMIN_KEY

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
