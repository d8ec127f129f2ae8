"""An empty registry leads to its first expert."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from experts_registry.database import Database
from tests.browser.conftest import Person
from tests.fakes.admin import AdminParts
from workers.discovery import DiscoveredModel


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
