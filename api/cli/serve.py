"""``consilium serve``: the service in the foreground, until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.failures import CommandFailed, bad_input
from api.cli.output import note

if TYPE_CHECKING:
    from fastapi import FastAPI

    from api.settings import Settings

_CLIENT_VARIABLES = frozenset({"CONSILIUM_URL", "CONSILIUM_KEY"})
"""Read by the command line, not by the service; in a ``.env`` file nothing reads them."""
_CHATTY = ("alembic", "faiss", "httpx", "uvicorn")
"""Libraries that tell at info how they do their work: of interest to whoever debugs them."""
_BACKLOG = 2048
"""Connections that the kernel holds while the process is busy; uvicorn's own default."""
_LOOK_EVERY_S = 0.1


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default CONSILIUM_HOST, then 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. Default CONSILIUM_PORT, then 8080.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Database and admin key; default CONSILIUM_DATA_DIR, then ./data.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error; default CONSILIUM_LOG_LEVEL, then info.")] = None,
) -> None:
    """Start the service."""
    from api.app import create_app
    from api.settings import SettingsError, load_settings, names_in_env_file, unknown_variables

    try:
        settings = load_settings(host=host, port=port, data_dir=data_dir, log_level=log_level)
        app = create_app(settings)
    except SettingsError as error:
        raise bad_input(str(error)) from error
    for warning in unknown_variables([*(os.environ.keys() - _CLIENT_VARIABLES), *names_in_env_file()]):
        note(f"warning: {warning}")
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if settings.log_level != "debug":
        for chatty in _CHATTY:
            logging.getLogger(chatty).setLevel(logging.WARNING)
    listener = _listen(settings.host, settings.port)
    asyncio.run(_serve(app, settings, listener))


async def _serve(app: FastAPI, settings: Settings, listener: socket.socket) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        """Signals stop the service; uvicorn's own handling would raise them again before our parts are closed."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            loop = asyncio.get_running_loop()
            from uvicorn.server import HANDLED_SIGNALS

            for number in HANDLED_SIGNALS:
                loop.add_signal_handler(number, self.handle_exit, number, None)
            try:
                yield
            finally:
                for number in HANDLED_SIGNALS:
                    loop.remove_signal_handler(number)

    config = uvicorn.Config(
        app,
        lifespan="off",  # entered here, so that a start that fails is one line and not uvicorn's stack trace
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )
    server = Server(config)
    url = _url(listener)
    note(f"starting on {url}")
    async with app.router.lifespan_context(app):
        announcing = asyncio.create_task(_announce(app, settings, url))
        try:
            await server.serve(sockets=[listener])
        finally:
            announcing.cancel()
            await asyncio.wait({announcing})
    note("stopped")


async def _announce(app: FastAPI, settings: Settings, url: str) -> None:
    """Tell when everything is loaded, what there is, and how to ask."""
    services = app.state.services
    told: dict[str, str] = {}
    while missing := services.readiness.missing:
        for name, state in missing.items():
            if told.get(name) != state and name in told:
                note(f"{name}: {state}")
            told[name] = state
        await asyncio.sleep(_LOOK_EVERY_S)
    snapshot = services.directory.snapshot()
    key = "CONSILIUM_ADMIN_KEY" if settings.admin_key is not None else str(settings.data_dir / "admin.key")
    bearer = " -H 'authorization: Bearer '$CONSILIUM_KEY" if settings.api_key_list else ""
    note(f"admin key: {key}")
    note(f"ready: {len(snapshot.experts)} experts, {len(snapshot.skills)} skills at {url}/v1 (docs at {url}/docs). Try:")
    note(
        f"  curl {url}/v1/chat/completions{bearer} -H 'content-type: application/json' "
        """-d '{"model": "auto", "messages": [{"role": "user", "content": "Write MCMXCIV in Arabic numerals."}]}'"""
    )


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``CommandFailed`` that says why there can be none."""
    bare = host.strip("[]")
    try:
        family, *_, address = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((str(address[0]), port), family=family, backlog=_BACKLOG)
    except socket.gaierror as error:
        raise bad_input(f"--host {host}: {error.strerror}") from error
    except OSError as error:
        hint = "another process listens there; choose another --port, or stop it" if error.errno == errno.EADDRINUSE else error.strerror
        raise CommandFailed(f"cannot listen on {host}:{port}: {hint}") from error


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104  # only shown
    return f"http://{shown}:{port}"
