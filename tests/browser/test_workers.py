"""Managed servers, on stand-ins for vLLM."""

from __future__ import annotations

import pytest

from domain.experts import ServingOptions
from tests.browser.conftest import Person
from tests.fakes.admin import AdminParts
from tests.fakes.fleets import managed


@pytest.fixture
def parts() -> AdminParts:
    sleeper = managed("sleeper", serving=ServingOptions(gpus=("0",), asleep_mb=5.0))
    return AdminParts(managed=[managed("base"), sleeper])


def test_a_server_is_loaded_read_and_stopped(steward: Person) -> None:
    steward.open("/admin/workers")
    steward.page.get_by_role("button", name="Start base").click()
    row = steward.page.get_by_role("row").filter(has_text="base")
    row.get_by_text("ready", exact=True).wait_for()
    steward.look("workers")
    row.get_by_role("link", name="Logs of base").click()
    steward.page.locator(".log").wait_for()
    steward.look("worker-logs")
    steward.open("/admin/workers")
    steward.page.get_by_role("button", name="Stop base").click()
    steward.page.get_by_role("row").filter(has_text="base").get_by_text("stopped", exact=True).wait_for()


def test_a_server_is_put_to_sleep_and_woken(steward: Person) -> None:
    steward.open("/admin/workers")
    steward.page.get_by_role("button", name="Start sleeper").click()
    row = steward.page.get_by_role("row").filter(has_text="sleeper")
    row.get_by_text("ready", exact=True).wait_for()
    steward.page.get_by_role("button", name="Sleep sleeper").click()
    row.get_by_text("asleep", exact=True).wait_for()
    steward.look("workers-asleep")
    steward.page.get_by_role("button", name="Wake sleeper").click()
    row.get_by_text("ready", exact=True).wait_for()


def test_what_a_server_cannot_do_is_told(steward: Person) -> None:
    steward.expected = ["400", "409"]
    steward.open("/admin/workers")
    steward.page.get_by_role("button", name="Sleep base").click()
    steward.page.get_by_role("alert").get_by_text("base").first.wait_for()
