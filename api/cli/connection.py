"""The way to a service: a running one over the network, else one that lives in this process for the length of a command."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from api.cli.failures import CommandFailed, bad_input
from api.cli.output import note

if TYPE_CHECKING:
    import httpx

    from api.cli.client import ApiClient
    from api.readiness import Readiness
    from api.settings import Settings

DEFAULT_URL = "http://127.0.0.1:8080"
PROBE_TIMEOUT_S = 3.0
"""Longest wait for "is somebody there?"; a refused connection answers at once."""
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 600.0
"""Longest silence of a service that was asked something: above every deadline that a strategy is likely to have."""
START_TIMEOUT_S = 180.0
"""Longest start of a service in this process: an encoder and a zoo on a slow disk take well under a minute."""
_LOOK_EVERY_S = 0.05
_ASK_AGAIN_S = 0.2

REGISTRY = ("database",)
"""What has to be loaded for commands that read and change what is known."""
EVERYTHING = ()
"""For commands that ask experts."""


@dataclass(frozen=True, slots=True)
class Server:
    """Which service a command talks to.

    1. ``--local``: this process.
    2. A URL that was given: that one, or the command fails.
    3. The default URL when a service answers there, else this process, on the same database.
    """

    url: str | None = None
    local: bool = False
    data_dir: Path | None = None
    key: str | None = None

    @asynccontextmanager
    async def connect(self, *, needs: Iterable[str] = REGISTRY) -> AsyncIterator[ApiClient]:
        """A client for it; a note on stderr tells when it is in this process.

        *needs* names the parts that must be loaded before it is asked anything (all of them when empty).
        """
        from api.cli.client import ApiClient
        from api.settings import SettingsError, load_settings

        try:
            settings = load_settings(data_dir=self.data_dir)
        except SettingsError as error:
            raise bad_input(str(error)) from error
        url = None if self.local else await self._running()
        if url is not None:
            key = self.key or (admin_key(settings) if is_here(url) else None)
            async with _http(url, key) as http:
                await _until_loaded(http, url, set(needs))
                yield ApiClient(http, where=url, is_local=False)
            return
        note(
            ("" if self.local else f"no service at {DEFAULT_URL}: ")
            + f"working in this process on {settings.data_dir}"
            + ("" if set(needs) == set(REGISTRY) else ", which has to load the models first")
        )
        async with _in_this_process(settings, needs) as http:
            yield ApiClient(http, where="this process", is_local=True)

    async def _running(self) -> str | None:
        """The URL of a running service; None when none was asked for and none answers. Raises when the one asked for is not there."""
        import httpx

        url = (self.url or DEFAULT_URL).rstrip("/").removesuffix("/v1")
        if not url.startswith(("http://", "https://")):
            raise bad_input(f"--url {url!r} must begin with http:// or https://")
        try:
            async with httpx.AsyncClient(base_url=url, timeout=PROBE_TIMEOUT_S, trust_env=False, verify=_is_tls(url)) as http:
                found = (await http.get("/ready")).json()
            if isinstance(found, dict) and "parts" in found:
                return url
            problem = "what answers there is no Consilium"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = f"{str(error) or type(error).__name__}"
        except ValueError:
            problem = "what answers there is no Consilium"
        if self.url:
            raise CommandFailed(f"no service at {url}: {problem}. Start one with 'consilium serve', or leave --url out to work without one")
        return None


def is_here(url: str) -> bool:
    """Whether *url* leads to this machine. A service elsewhere is another one: this one's admin key is no business of its."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def admin_key(settings: Settings) -> str | None:
    """The admin key of the service on this machine; None where there is none yet."""
    if settings.admin_key is not None:
        return settings.admin_key.get_secret_value()
    try:
        return (settings.data_dir / "admin.key").read_text().strip() or None
    except OSError:
        return None


def _http(base_url: str, key: str | None, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    import httpx

    return httpx.AsyncClient(
        base_url=base_url,
        transport=transport,
        headers={"authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        trust_env=False,
        verify=_is_tls(base_url),
    )


def _is_tls(url: str) -> bool:
    """Certificates are loaded only where one is checked: that takes longer than most commands."""
    return url.startswith("https://")


@asynccontextmanager
async def _in_this_process(settings: Settings, needs: Iterable[str]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that starts now and ends with the block."""
    from pydantic import SecretStr

    from api.app import create_app
    from api.cli.registry_only import registry_only
    from api.in_process import InProcessTransport

    key = secrets.token_urlsafe(32)  # for this command only: the data dir's key is made, and told, when a service starts
    wanted = set(needs)
    app = create_app(
        settings.model_copy(update={"admin_key": SecretStr(key)}),
        bootstrap=registry_only if wanted == set(REGISTRY) else None,
        has_stored_keys=True,  # nobody reaches what does not listen
    )
    async with app.router.lifespan_context(app) as state:
        await until_ready(app.state.services.readiness, wanted)
        async with _http("http://localhost", key, InProcessTransport(app, state=state or {})) as http:
            yield http


async def _until_loaded(http: httpx.AsyncClient, url: str, wanted: set[str], *, timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait for a service elsewhere that is still starting. Raises ``CommandFailed`` when that takes too long, or when the
    service is gone meanwhile."""
    give_up = time.monotonic() + timeout_s
    told = False
    while missing := _of(wanted, await _missing(http, url)):
        if time.monotonic() > give_up:
            raise CommandFailed(f"{url} does not become ready: {_listed(missing)}")
        if not told:
            note(f"waiting for {url}: {_listed(missing)}")
            told = True
        await asyncio.sleep(_ASK_AGAIN_S)


async def _missing(http: httpx.AsyncClient, url: str) -> Mapping[str, str]:
    """What the service at *url* has not loaded yet. Raises ``CommandFailed`` when it does not say."""
    import httpx

    try:
        found = (await http.get("/ready", timeout=PROBE_TIMEOUT_S)).json()
    except httpx.HTTPError as error:
        raise CommandFailed(f"the service at {url} stopped answering: {str(error) or type(error).__name__}") from error
    except ValueError:
        found = None
    missing = found.get("missing", {}) if isinstance(found, dict) else None
    if not isinstance(missing, dict):
        raise CommandFailed(f"what answers at {url} is no Consilium any more")
    return missing


async def until_ready(readiness: Readiness, needs: Iterable[str], *, timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait for the parts *needs* (all when empty). Raises ``CommandFailed`` that says what is missing when it takes too long."""
    wanted = set(needs)
    give_up = time.monotonic() + timeout_s
    while missing := _of(wanted, readiness.missing):
        if time.monotonic() > give_up:
            raise CommandFailed(f"the service does not start: {_listed(missing)}")
        await asyncio.sleep(_LOOK_EVERY_S)


def _of(wanted: set[str], missing: Mapping[str, str]) -> dict[str, str]:
    return {name: state for name, state in missing.items() if not wanted or name in wanted}


def _listed(missing: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {state}" for name, state in missing.items())
