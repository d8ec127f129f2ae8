"""The admin plane over ASGI, and a listening service for the command line, on copies of one filled SQLite file."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from api.app import create_app
from api.cli.main import run
from api.settings import Settings
from tests.fakes.admin import AdminParts, registry_file
from tests.fakes.served import served
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


@pytest.fixture
def url(parts: AdminParts, filled: Path, tmp_path: Path) -> Iterator[str]:
    """A service that listens on loopback, in a thread of its own, so that commands can bring their own event loop."""
    data_dir = tmp_path / "served"
    data_dir.mkdir()
    shutil.copy(filled, data_dir)
    (data_dir / "admin.key").write_text(ADMIN_KEY)
    app = create_app(Settings(data_dir=data_dir, _env_file=None), bootstrap=parts.bootstrap)
    with served(app) as address:
        yield address


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


Consilium = Callable[..., Ran]


@pytest.fixture
def consilium(url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Consilium:
    """``consilium("experts", "list")``: the command as typed, talking to the service at ``url``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONSILIUM_URL", url)
    monkeypatch.setenv("CONSILIUM_DATA_DIR", str(tmp_path / "served"))

    def typed(*arguments: str) -> Ran:
        capfd.readouterr()
        code = run(_texts(arguments))
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return typed


def _texts(arguments: Sequence[object]) -> list[str]:
    return [str(argument) for argument in arguments]
