"""Who may come in."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app
from api.auth import Auth, load_admin_key
from api.settings import Settings, SettingsError
from domain.errors import Unauthenticated
from tests.fakes.services import ADMIN_KEY, parts

ASK: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


def settings_in(folder: Path, **changes: Any) -> Settings:
    return Settings(_env_file=None, data_dir=folder, **changes)  # type: ignore[call-arg]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_refuses_to_start_in_the_open_without_keys(tmp_path: Path, host: str) -> None:
    """On an address that others can reach, a key is needed, and the error says which setting."""
    with pytest.raises(SettingsError, match="CONSILIUM_API_KEYS"):
        create_app(settings_in(tmp_path, host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_needs_no_key(tmp_path: Path, host: str) -> None:
    """On loopback it starts as it is."""
    assert create_app(settings_in(tmp_path, host=host)) is not None


def test_blank_keys_are_no_keys(tmp_path: Path) -> None:
    """A list of blanks does not open the service to the world."""
    with pytest.raises(SettingsError):
        settings_in(tmp_path, host="0.0.0.0", api_keys=" , ,").check_exposure()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Bearer ", 401),
        ("Basic key-one", 401),
        ("Bearer key-one", 200),
        ("bearer key-two", 200),
        (f"Bearer {ADMIN_KEY}", 200),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/metrics")])
async def test_keys_in_the_open(serve: Any, method: str, path: str, header: str | None, status: int) -> None:
    """Off loopback every data-plane request needs one of the keys, or the admin key."""
    http = await serve(parts({"a": "1"}), host="0.0.0.0", api_keys=settings_in(Path(), api_keys="key-one, key-two").api_keys)
    response = await http.request(
        method, path, json=ASK if method == "POST" else None, headers={"authorization": header} if header is not None else {}
    )

    assert response.status_code == status
    if status == 401:
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_probes_need_no_key(serve: Any, path: str) -> None:
    """Health probes carry no keys."""
    http = await serve(parts({"a": "1"}), host="0.0.0.0", api_keys=settings_in(Path(), api_keys="key").api_keys)

    assert (await http.get(path)).status_code == 200


async def test_keys_are_asked_before_the_body_is_read(serve: Any) -> None:
    """Without a key nothing is told about what is wrong with the request."""
    http = await serve(parts({"a": "1"}), host="0.0.0.0", api_keys=settings_in(Path(), api_keys="key").api_keys)
    response = await http.post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"})

    assert response.status_code == 401


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/admin/api/experts"])
async def test_who_has_no_key_sends_no_body_into_memory(serve: Any, path: str) -> None:
    http = await serve(parts({"a": "1"}), host="0.0.0.0", api_keys=settings_in(Path(), api_keys="key").api_keys)
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(path)
        yield b"{}"

    response = await http.post(path, content=body(), headers={"content-type": "application/json"})

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert read == []


async def test_bodies_are_counted_wherever_they_are_sent(serve: Any) -> None:
    """No path holds more bodies in memory at once than the service serves requests."""
    client = await serve(parts({"a": "1"}), max_requests=1)
    arriving, may_end = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        arriving.set()
        await may_end.wait()
        yield b"{}"

    first = asyncio.create_task(client.post("/nowhere", content=body(), headers={"content-type": "application/json"}))
    await arriving.wait()
    second = await client.post("/nowhere", content=b"{}", headers={"content-type": "application/json"})
    may_end.set()

    assert second.status_code == 429
    assert (await first).status_code == 404


def test_admin_plane_always_needs_the_admin_key() -> None:
    """A data-plane key does not open the admin plane, and neither does loopback."""
    auth = Auth(api_keys=["data"], admin_key="admin")
    auth.require_admin("Bearer admin")

    for header in (None, "Bearer data", "admin"):
        with pytest.raises(Unauthenticated):
            auth.require_admin(header)


def test_admin_key_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first start makes the key, keeps it for the owner alone and prints it; the next start reads it silently."""
    settings = settings_in(tmp_path / "new")
    key = load_admin_key(settings)
    path = tmp_path / "new" / "admin.key"

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().strip() == key
    assert key in capsys.readouterr().err
    assert load_admin_key(settings) == key
    assert capsys.readouterr().err == ""


def test_admin_key_of_the_settings_wins(tmp_path: Path) -> None:
    """A key that is set is used, and no file is made."""
    assert load_admin_key(settings_in(tmp_path, admin_key="chosen-by-an-operator")) == "chosen-by-an-operator"
    assert list(tmp_path.iterdir()) == []


def test_empty_admin_key_file_is_an_error(tmp_path: Path) -> None:
    """An empty file must not mean an empty key."""
    (tmp_path / "admin.key").write_text("\n")
    with pytest.raises(SettingsError, match="empty"):
        load_admin_key(settings_in(tmp_path))


@pytest.mark.parametrize("key", ["", "   ", "fifteen-letters"])
def test_a_blank_or_short_admin_key_is_an_error(key: str, tmp_path: Path) -> None:
    """Sessions of the admin UI are signed with it: who could guess it would be let in as the owner."""
    with pytest.raises(SettingsError, match=r"CONSILIUM_ADMIN_KEY .* at least 16"):
        load_admin_key(settings_in(tmp_path, admin_key=key))
    (tmp_path / "admin.key").write_text(f"{key}\n")
    with pytest.raises(SettingsError, match="at least 16"):
        load_admin_key(settings_in(tmp_path))


def test_an_empty_variable_is_no_admin_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass an unset variable on as an empty one: a key is made as if it were not there."""
    monkeypatch.setenv("CONSILIUM_ADMIN_KEY", "")

    key = load_admin_key(settings_in(tmp_path))

    assert len(key) >= 16
    assert (tmp_path / "admin.key").read_text().strip() == key


def test_an_admin_key_that_another_process_made_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes that start at once both have the key that came first, whole, and nothing is left beside it."""
    link = os.link

    def late(source: Path, target: Path) -> None:
        target.write_text("ck-admin-of-the-other-process\n")
        link(source, target)

    monkeypatch.setattr(os, "link", late)

    assert load_admin_key(settings_in(tmp_path)) == "ck-admin-of-the-other-process"
    assert [path.name for path in tmp_path.iterdir()] == ["admin.key"]
