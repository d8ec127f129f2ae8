"""Strategies, keys and the audit log, as an owner uses them."""

from __future__ import annotations

import httpx

from tests.browser.conftest import Person
from tests.fakes.services import ADMIN_KEY


def test_a_strategy_is_added_changed_deleted_and_brought_back(steward: Person) -> None:
    steward.expected = ["400"]
    steward.open("/admin/strategies")
    steward.look("strategies")
    steward.click("Add a strategy", "link")
    steward.field("Id").fill("sure")
    steward.field("Router").select_option("fixed")
    steward.field("At most (k)").fill("0")
    steward.click("Add")
    steward.sees("must be greater than or equal to 1")
    steward.look("strategy-form")
    steward.field("At most (k)").fill("3")
    steward.click("Add")
    steward.sees("Added. It can be asked now.")
    steward.look("strategy")
    steward.click("Delete")
    steward.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    steward.click("Undo")
    steward.sees("Put back as it was.")


def test_a_keys_secret_is_shown_once_and_works_until_it_is_revoked(steward: Person) -> None:
    steward.open("/admin/keys")
    steward.look("keys-empty")
    steward.page.get_by_role("link", name="Create a key").first.click()
    steward.field("Id").fill("team-a")
    steward.field("Name").fill("Team A")
    steward.field("Role").select_option("viewer")
    steward.page.get_by_text("How much", exact=True).click()
    steward.field("Requests per minute").fill("600")
    steward.click("Create")
    steward.sees("Keep it now.")
    secret = steward.field("Secret").input_value()
    steward.look("key-secret")
    asked = httpx.get(f"{steward.url}/v1/models", headers={"authorization": f"Bearer {secret}"})
    assert asked.status_code == 200
    steward.click("I have it", "link")
    assert secret not in steward.page.content()
    steward.look("key")
    steward.open("/admin/keys")
    steward.look("keys")
    steward.open("/admin/keys/team-a")
    steward.click("Revoke")
    steward.page.get_by_role("dialog", name="Revoke team-a?").get_by_role("button", name="Revoke").click()
    steward.sees("Revoked: it is not let in any more.")
    assert httpx.get(f"{steward.url}/v1/models", headers={"authorization": f"Bearer {secret}"}).status_code == 401


def test_a_key_gets_a_new_secret_and_its_use_is_told_by_expert(steward: Person) -> None:
    owner = {"authorization": f"Bearer {ADMIN_KEY}"}
    old = httpx.post(f"{steward.url}/admin/api/keys", json={"id": "team-b"}, headers=owner).json()["key"]
    ask = {"model": "good", "messages": [{"role": "user", "content": "algebra 3?"}]}
    asked = httpx.post(f"{steward.url}/v1/chat/completions", json=ask, headers={"authorization": f"Bearer {old}"})
    assert asked.status_code == 200
    steward.open("/admin/keys/team-b")
    while steward.page.get_by_role("heading", name="By expert").count() == 0:  # written behind the request's back
        steward.open("/admin/keys/team-b")
    steward.page.get_by_role("row").filter(has_text="good").wait_for()
    steward.look("key-used")
    steward.click("New secret")
    steward.page.get_by_label("Hours for which the old one goes on").fill("0")
    steward.click("Make it")
    new = steward.field("Secret").input_value()
    assert new != old
    steward.click("I have it", "link")
    assert new not in steward.page.content()
    for secret, status in ((old, 401), (new, 200)):
        assert httpx.get(f"{steward.url}/v1/models", headers={"authorization": f"Bearer {secret}"}).status_code == status


def test_a_viewer_sees_everything_but_the_audit_log_and_changes_nothing(person: Person) -> None:
    person.expected = ["403"]
    made = httpx.post(
        f"{person.url}/admin/api/keys", json={"id": "looker", "role": "viewer"}, headers={"authorization": f"Bearer {ADMIN_KEY}"}
    ).json()
    person.log_in(made["key"], "/admin/experts")
    person.page.get_by_role("heading", name="Experts").wait_for()
    assert person.page.get_by_role("link", name="Audit log").count() == 0
    assert person.page.get_by_role("link", name="Add an expert").count() == 0
    person.open("/admin/experts/good/edit")
    person.sees("this needs the role editor")
    person.look("not-allowed")
    httpx.delete(f"{person.url}/admin/api/keys/looker", headers={"authorization": f"Bearer {ADMIN_KEY}"})
    person.open("/admin/experts")
    person.field("Key").wait_for()


def test_the_audit_log_says_who_changed_what(steward: Person) -> None:
    steward.open("/admin/experts/good")
    steward.click("Disable")
    steward.open("/admin/audit")
    steward.sees("/admin/api/experts/good")
    steward.sees("enabled")
    steward.look("audit")
