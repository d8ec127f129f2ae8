"""Coming in, going out, and the first page."""

from __future__ import annotations

import httpx

from tests.browser.conftest import Person
from tests.fakes.services import ADMIN_KEY


def test_a_wrong_key_is_told_beside_the_field_and_the_right_one_leads_to_the_page_that_was_asked_for(person: Person) -> None:
    person.expected = ["401"]
    person.open("/admin/experts")
    person.page.get_by_label("Key").fill("not the key")
    person.click("Log in")
    person.sees("This is not a key that may come in here")
    person.look("login")
    person.page.get_by_label("Key").fill(ADMIN_KEY)
    person.page.keyboard.press("Enter")
    person.page.get_by_role("heading", name="Experts").wait_for()


def test_the_overview_shows_what_went_through(steward: Person) -> None:
    for question in ("algebra 1?", "algebra 2?"):
        httpx.post(f"{steward.url}/v1/chat/completions", json={"model": "auto", "messages": [{"role": "user", "content": question}]})
    steward.open("/admin")
    steward.page.get_by_role("row").filter(has_text="bad").wait_for()  # the figures renew themselves once traces are written
    steward.sees("Where requests went")
    steward.look("overview")


def test_who_logs_out_is_asked_for_the_key_again(steward: Person) -> None:
    steward.click("Log out")
    steward.open("/admin/experts")
    steward.page.get_by_label("Key").wait_for()


def test_the_keyboard_alone_leads_through_the_navigation(steward: Person) -> None:
    steward.page.keyboard.press("Tab")
    assert steward.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for _ in range(20):
        steward.page.keyboard.press("Tab")
        if steward.page.evaluate("document.activeElement.textContent.trim()") == "Experts":
            break
    steward.page.keyboard.press("Enter")
    steward.page.get_by_role("heading", name="Experts").wait_for()
