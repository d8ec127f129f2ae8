"""An empty registry leads to its first expert."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from experts_registry.database import Database
from tests.browser.conftest import Person
from tests.fakes.admin import AdminParts
from workers.discovery import DiscoveredModel

A_MINUTE_S = 60.0


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database with nothing in it."""
    path = tmp_path_factory.mktemp("empty") / "consilium.db"

    async def make() -> None:
        database = Database.connect(f"sqlite+aiosqlite:///{path}")
        await database.upgrade()
        await database.close()

    asyncio.run(make())
    return path


@pytest.fixture
def registry(empty: Path, tmp_path: Path) -> Path:
    shutil.copy(empty, tmp_path)
    return tmp_path


def test_an_empty_registry_leads_to_an_answer_of_the_first_expert_within_a_minute(person: Person, parts: AdminParts) -> None:
    """From the login, with nothing known but a server's address, as somebody does it who reads what stands there."""
    parts.pool.served = [DiscoveredModel("Qwen/Qwen3-8B", 32768, None, "vllm")]
    parts.pool.scripted._repeated["qwen3-8b"] = "Good morning."
    began = time.monotonic()
    person.log_in()
    person.page.get_by_label("Address of the server").fill("http://127.0.0.1:8000/v1")
    person.click("Look what it serves")
    person.click("Add the chosen")
    person.click("qwen3-8b", "link")
    person.click("Try it", "link")
    person.page.get_by_label("Question").fill("Good morning?")
    person.click("Ask")
    person.page.locator(".pane .answer").get_by_text("Good morning.").wait_for()
    assert time.monotonic() - began < A_MINUTE_S


def test_the_first_expert_is_there_after_three_clicks(steward: Person, parts: AdminParts) -> None:
    parts.pool.served = [DiscoveredModel("Qwen/Qwen3-8B", 32768, None, "vllm")]
    steward.page.get_by_role("heading", name="Add the first expert").wait_for()
    steward.look("welcome")
    steward.click("Look what it serves")
    steward.click("Add the chosen")
    steward.sees("Added:")
    steward.open("/admin/experts")
    steward.page.get_by_role("link", name="qwen3-8b", exact=True).wait_for()
    for page in ("", "/skills", "/requests", "/batches", "/workers", "/strategies", "/keys", "/audit", "/playground", "/evaluation"):
        steward.open(f"/admin{page}")
        steward.page.get_by_role("heading", level=1).wait_for()
