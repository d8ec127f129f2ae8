"""Options that many commands share, and the decorator that gives a command its way to the service."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.connection import DEFAULT_URL, Server
from api.cli.failures import bad_input

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]

_URL = Annotated[
    str | None,
    typer.Option("--url", envvar="CONSILIUM_URL", show_default=DEFAULT_URL, help="The running service to talk to."),
]
_LOCAL = Annotated[bool, typer.Option("--local", help="Work in this process, also when a service is running.")]
_DATA_DIR = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where the database and the admin key are; default CONSILIUM_DATA_DIR, then ./data."),
]
_KEY = Annotated[
    str | None,
    typer.Option(
        "--key", envvar="CONSILIUM_KEY", help="API key for a running service; one on this machine has the data dir's admin key by default."
    ),
]

_SHARED = {"url": (_URL, None), "local": (_LOCAL, False), "data_dir": (_DATA_DIR, None), "key": (_KEY, None)}


def connected(command: Callable[..., Coroutine[Any, Any, Callable[[], None] | None]]) -> Callable[..., None]:
    """Make a command of *command*, whose first parameter is the ``Server``; adds the options that say where that is.

    What *command* returns is called when its event loop is gone: work that blocks, which an interruption has to reach.
    """
    signature = inspect.signature(command, eval_str=True)
    own = list(signature.parameters.values())[1:]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _SHARED.items()
    ]
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        server = Server(**{name: given.pop(name) for name in _SHARED})
        afterwards = asyncio.run(command(server, **given))
        if afterwards is not None:
            afterwards()

    # Typer reads both; ``functools.wraps`` would make it read the wrapped command's.
    run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    del run.__wrapped__
    return run


def json_object(text: str | None, option: str, *, example: str) -> dict[str, Any] | None:
    """A JSON object that *option* was given; None when it was not given."""
    if text is None:
        return None
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise bad_input(f"{option} is no JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise bad_input(f"{option} must be a JSON object, such as {example}")
    return parsed


def names(text: str | None) -> list[str] | None:
    """A comma-separated option as a list; None when it was not given."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]
