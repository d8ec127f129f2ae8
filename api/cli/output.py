"""What commands print: tables and notes for people, JSON for programs. Colours only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PIPE_WIDTH = 160
"""Columns when the output is no terminal, so that rows stay whole for grep."""
_BAR_WIDTH = 20


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr as they are now; plain text when that is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """*value* on stdout, indented, text as it is."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def note(text: str) -> None:
    """A line for people on stderr, so that stdout holds the result alone."""
    print(text, file=sys.stderr)


def table(*columns: str, title: str | None = None, right: Sequence[str] = (), show_header: bool = True) -> Table:
    """An empty table; the columns of *right* hold numbers. Cells fold instead of being cut, markup in them is inert text."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_header=show_header, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def show(made: Table, *, stderr: bool = False) -> None:
    console(stderr=stderr).print(made)


def cell(value: Any) -> str:
    """*value* as the text of a table cell, safe from markup."""
    from rich.markup import escape

    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list() | tuple():
            return escape(", ".join(str(item) for item in value))
        case _:
            return escape(str(value))


def bar(share: float) -> str:
    """A bar for a share in [0, 1]."""
    return "█" * round(max(0.0, min(1.0, share)) * _BAR_WIDTH)


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def moment(seconds: float | None) -> str:
    """Seconds since the epoch as local time."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def shortened(text: str, limit: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
