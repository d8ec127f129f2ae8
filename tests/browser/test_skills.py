"""Measuring experts, and reading what it came to."""

from __future__ import annotations

from tests.browser.conftest import Person


def test_experts_are_measured_and_the_map_leads_to_the_questions(steward: Person) -> None:
    steward.open("/admin/skills")
    steward.sees("Nothing is measured yet")
    steward.look("skills-empty")
    steward.page.get_by_role("link", name="Measure experts").first.click()
    steward.field("Note").fill("the first look")
    steward.click("Begin")
    steward.page.get_by_text("finished", exact=True).wait_for()
    steward.sees("24 of 24 answers")
    steward.look("measurement")
    steward.open("/admin/skills")
    steward.look("skills")
    steward.page.get_by_label("Sorted by").select_option("roman numerals")
    steward.page.wait_for_url("**sort=roman**")
    steward.page.get_by_role("row").filter(has_text="good").get_by_role("link", name="100 %").first.click()
    steward.sees("algebra 3?")
    steward.look("skill-questions")
    steward.page.get_by_label("Which").select_option("wrong")
    steward.sees("There is no such answer.")
    steward.open("/admin/experts/good")
    steward.page.get_by_role("heading", name="Questions it lost").wait_for()
    steward.look("expert-measured")
    steward.open("/admin/experts")
    steward.look("experts-measured")


def test_a_measurement_can_be_taken_back(steward: Person) -> None:
    steward.open("/admin/skills/measure?experts=good&skills=algebra")
    steward.click("Begin")
    steward.page.get_by_text("finished", exact=True).wait_for()
    steward.click("Take it back")
    steward.sees("what it measured counts for nothing")
    steward.open("/admin/skills/runs")
    steward.page.get_by_text("rolled back").wait_for()
    steward.look("measurements")


def test_a_question_about_unknown_experts_is_told_beside_the_field(steward: Person) -> None:
    steward.expected = ["400"]
    steward.open("/admin/skills/measure")
    steward.field("Experts").fill("goood")
    steward.click("Begin")
    steward.page.locator(".problem").get_by_text("good").wait_for()
