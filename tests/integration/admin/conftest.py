"""The admin plane over ASGI, on a fresh SQLite file."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from api.app import create_app
from api.settings import Settings
from tests.fakes.admin import AdminParts, registry_file
from tests.fakes.services import ADMIN_KEY


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return registry_file(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def parts() -> AdminParts:
    return AdminParts()


@pytest.fixture
async def client(parts: AdminParts, filled: Path, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``/admin/api`` that holds the admin key."""
    shutil.copy(filled, tmp_path)
    app = create_app(Settings(data_dir=tmp_path, _env_file=None), bootstrap=parts.bootstrap)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost/admin/api", headers=headers) as made:
            yield made
