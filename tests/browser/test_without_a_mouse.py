"""With the keyboard alone, on a phone, and in the colours that one chose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.browser.conftest import DESKTOP, PHONE, SHOTS, Person

if TYPE_CHECKING:
    from playwright.sync_api import Page

MOST_STEPS = 60
"""Of the tabulator, to anything on a page."""


def focused(page: Page) -> str:
    """The name of what has the focus, as far as it is text."""
    return str(page.evaluate("(document.activeElement.textContent || document.activeElement.value || '').trim()"))


def tab_to(page: Page, name: str) -> None:
    """Press the tabulator until *name* has the focus, which has to be seen there."""
    for _ in range(MOST_STEPS):
        page.keyboard.press("Tab")
        if focused(page) == name:
            ring = page.evaluate("[getComputedStyle(document.activeElement)].map(s => [s.outlineStyle, s.boxShadow])[0]")
            assert ring != ["none", "none"], f"nobody sees that {name!r} has the focus"
            return
    raise AssertionError(f"the tabulator does not come to {name!r}")


def test_an_expert_is_deleted_and_brought_back_with_the_keyboard_alone(steward: Person) -> None:
    page = steward.page
    steward.open("/admin/experts/worse")
    tab_to(page, "Delete")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    assert focused(page) == "Delete", "who says no is where they were"
    page.keyboard.press("Enter")
    tab_to(page, "Delete")
    page.keyboard.press("Enter")
    steward.sees("is deleted.")
    tab_to(page, "Undo")
    page.keyboard.press("Enter")
    steward.sees("Put back as it was.")


def test_a_question_is_asked_with_the_keyboard_alone(steward: Person) -> None:
    page = steward.page
    steward.open("/admin/playground?model=good")
    page.get_by_label("Question").focus()
    page.keyboard.type("algebra 3?")
    tab_to(page, "Ask")
    page.keyboard.press("Enter")
    page.locator(".pane[data-done=yes]").wait_for()
    assert page.locator(".pane .answer").first.inner_text() == "3"


def test_on_a_phone_the_menu_leads_to_a_page_and_its_work(steward: Person) -> None:
    page = steward.page
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]  # width and height
    steward.open("/admin")
    assert not page.get_by_role("link", name="Experts", exact=True).is_visible()
    steward.click("Menu")
    page.screenshot(path=_shot("menu-light-phone"))
    steward.click("Experts", "link")
    steward.field("Search").fill("algebra")
    steward.click("Filter")
    steward.click("good", "link")
    steward.click("Disable")
    steward.sees("Disabled: it is not chosen any more.")
    steward.click("Delete")
    page.get_by_role("dialog").wait_for()
    box = page.get_by_role("dialog").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]
    page.screenshot(path=_shot("dialog-light-phone"))
    page.get_by_role("dialog").get_by_role("button", name="Keep it").click()


def test_the_colours_that_were_chosen_stay_on_every_page(steward: Person) -> None:
    page = steward.page
    page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
    page.emulate_media(color_scheme="light")

    def paper() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = paper()
    steward.click("Light or dark")
    dark = paper()
    assert dark != light
    steward.open("/admin/experts")
    assert paper() == dark, "whatever the system says"
    steward.click("Light or dark")
    steward.open("/admin")
    assert paper() == light


def _shot(name: str) -> str:
    SHOTS.mkdir(parents=True, exist_ok=True)
    return str(SHOTS / f"{name}.png")
