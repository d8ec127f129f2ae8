"""``consilium serve``: the service in the foreground, until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.failures import CommandFailed, bad_input
from api.cli.output import note
from api.event_loop import run_async

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from api.draining import Drain
    from api.settings import Settings

log = logging.getLogger(__name__)

_CLIENT_VARIABLES = frozenset({"CONSILIUM_URL", "CONSILIUM_KEY"})
"""Read by the command line, not by the service; in a ``.env`` file nothing reads them."""
_CHATTY = ("alembic", "faiss", "httpx", "uvicorn")
"""Libraries that tell at info how they do their work: of interest to whoever debugs them."""
_BACKLOG = 2048
"""Connections that the kernel holds while the process is busy; uvicorn's own default."""
KEEP_ALIVE_S = 75
"""Seconds that an idle connection is kept. Longer than clients and load balancers keep theirs (5 to 60 s): whoever closes first must not be
the one that is sent a request at that very moment."""
_CLOSE_GRACE_S = 1
"""Seconds that connections have to close once nothing runs, or nothing may run any more."""
_LOOK_EVERY_S = 0.1


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default CONSILIUM_HOST, then 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. Default CONSILIUM_PORT, then 8080.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Database and admin key; default CONSILIUM_DATA_DIR, then ./data.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes on the one port, on Linux; default CONSILIUM_WORKERS, then 1.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error; default CONSILIUM_LOG_LEVEL, then info.")] = None,
) -> None:
    """Start the service."""
    from api.settings import SettingsError, load_settings, names_in_env_file, unknown_variables

    try:
        settings = load_settings(host=host, port=port, data_dir=data_dir, workers=workers, log_level=log_level)
        has_stored_keys = _has_stored_keys(settings)
        settings.check_exposure(has_stored_keys=has_stored_keys)
        if settings.workers > 1:
            from api.cli.serve_workers import serve_workers

            serving = partial(serve_workers, settings)
        else:
            from api.app import create_app

            serving = partial(_serve_alone, create_app(settings, has_stored_keys=has_stored_keys), settings)
    except SettingsError as error:
        raise bad_input(str(error)) from error
    log_to_stderr(settings)
    for warning in unknown_variables([*(os.environ.keys() - _CLIENT_VARIABLES), *names_in_env_file()]):
        tell(f"warning: {warning}")
    serving()


def _has_stored_keys(settings: Settings) -> bool:
    """Whether the database has keys, where that decides whether the service may start. One that cannot be read does not decide it: without
    a key nobody is let in."""
    if settings.is_loopback or settings.api_key_list:
        return False
    from api.bootstrap import stored_keys_exist
    from domain.errors import NotReady, StorageError

    try:
        return run_async(stored_keys_exist(settings))
    except StorageError:
        return True
    except NotReady:  # a database without tables
        return False


def log_to_stderr(settings: Settings, *, worker: int | None = None) -> None:
    """One line for each message from the settings' level on. *worker*: the process's number among several."""
    from api.logs import TEXT_FORMAT, JsonFormatter

    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(worker=worker) if settings.log_format == "json" else logging.Formatter(TEXT_FORMAT))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.captureWarnings(settings.log_format == "json")  # else Python writes them to stderr as text
    logging.getLogger("aiosqlite").setLevel(logging.INFO)  # at debug it writes down whatever is stored
    if settings.log_level != "debug":
        for chatty in _CHATTY:
            logging.getLogger(chatty).setLevel(logging.WARNING)


def tell(text: str) -> None:
    """A line for whoever watches the service: a note, or where the log is for programs a part of it."""
    from api.logs import is_json

    if is_json():
        log.info("%s", text.strip())
    else:
        note(text)


def _serve_alone(app: FastAPI, settings: Settings) -> None:
    listener = listen(settings.host, settings.port)
    url = url_of(listener, settings.scheme)

    async def opened() -> socket.socket:
        return listener

    async def announce() -> None:
        await announce_ready(app, settings, url)

    tell(f"starting on {url}")
    run_async(serve_app(app, settings, opened, announce=announce))
    tell("stopped")


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn is to serve *app*."""
    import uvicorn

    from api.http_protocol import BoundedHttpProtocol

    return uvicorn.Config(
        app,
        lifespan="off",  # entered by ``serve_app``, so that a start that fails is one line and not uvicorn's stack trace
        log_config=None,
        access_log=False,
        http=BoundedHttpProtocol,
        ws="none",  # there is nothing here to talk to through one
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=_CLOSE_GRACE_S,  # of what still runs when it was waited for
    )


async def serve_app(
    app: FastAPI,
    settings: Settings,
    opened: Callable[[], Awaitable[socket.socket]],
    *,
    announce: Callable[[], Coroutine[Any, Any, None]],
    signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM),
) -> None:
    """Serve *app* at the socket that *opened* gives until one of *signals* comes. *announce* runs beside it."""
    import uvicorn

    class Server(uvicorn.Server):
        """Signals are handled below; uvicorn's own handling would raise them again before our parts are closed."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    server = Server(server_config(app, settings))
    async with app.router.lifespan_context(app):
        serving = asyncio.create_task(_served(server, opened))
        beside = asyncio.create_task(announce())

        drain: Drain = app.state.drain
        draining: set[asyncio.Task[None]] = set()

        def stop(number: int) -> None:
            if server.started and not drain.has_begun:
                draining.add(asyncio.create_task(_drained(server, drain, number, settings.drain_timeout_s)))
                return
            server.handle_exit(number, None)  # asked a second time: at once
            if not server.started:  # it still waits for its socket, or does not listen yet
                serving.cancel()

        loop = asyncio.get_running_loop()
        for number in signals:
            loop.add_signal_handler(number, stop, number)
        try:
            await asyncio.wait({serving})
            if not serving.cancelled():
                serving.result()
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
            for task in (beside, *draining):
                task.cancel()
            await asyncio.wait({beside, *draining})


async def _drained(server: uvicorn.Server, drain: Drain, number: int, timeout_s: float) -> None:
    """Let what runs finish, for at most *timeout_s*, and stop *server* then. Until then it listens: whoever comes is told to ask again."""
    drain.begin()
    if drain.num_running:
        tell(f"stopping: {drain.num_running} requests may still end, for at most {timeout_s:g} s")
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await drain.until_idle()
    server.handle_exit(number, None)


async def _served(server: uvicorn.Server, opened: Callable[[], Awaitable[socket.socket]]) -> None:
    await server.serve(sockets=[await opened()])


async def announce_ready(app: FastAPI, settings: Settings, url: str) -> None:
    """Tell when everything is loaded, what there is, and how to ask."""
    services = app.state.services
    told: dict[str, str] = {}
    while missing := services.readiness.missing:
        for name, state in missing.items():
            if told.get(name) != state and name in told:
                tell(f"{name}: {state}")
            told[name] = state
        await asyncio.sleep(_LOOK_EVERY_S)
    snapshot = services.directory.snapshot()
    key = "CONSILIUM_ADMIN_KEY" if settings.admin_key is not None else str(settings.data_dir / "admin.key")
    bearer = " -H 'authorization: Bearer '$CONSILIUM_KEY" if settings.api_key_list else ""
    tell(f"admin key: {key}")
    tell(f"ready: {len(snapshot.experts)} experts, {len(snapshot.skills)} skills at {url}/v1 (docs at {url}/docs). Try:")
    tell(
        f"  curl {url}/v1/chat/completions{bearer} -H 'content-type: application/json' "
        """-d '{"model": "auto", "messages": [{"role": "user", "content": "Write MCMXCIV in Arabic numerals."}]}'"""
    )


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket. Raises ``CommandFailed`` that says why there can be none.

    *shared*: others that say so too may listen at the same port, and the kernel spreads connections over them (Linux).
    """
    bare = host.strip("[]")
    try:
        family, *_, address = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server((str(address[0]), port), family=family, backlog=_BACKLOG, reuse_port=shared)
        # Connections inherit it. Without, the kernel holds the second piece of an answer back until the caller has acknowledged the
        # first, which takes 40 ms: asyncio sets it only where the socket was made with its protocol's number, which this one is not.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except socket.gaierror as error:
        raise bad_input(f"--host {host}: {error.strerror}") from error
    except OSError as error:
        hint = "another process listens there; choose another --port, or stop it" if error.errno == errno.EADDRINUSE else error.strerror
        raise CommandFailed(f"cannot listen on {host}:{port}: {hint}") from error


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104  # only shown
    return f"{scheme}://{shown}:{port}"
