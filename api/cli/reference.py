"""``docs/cli.md``, written from the commands themselves: ``python -m api.cli.reference > docs/cli.md``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from api.cli.main import app

_INTRODUCTION = """\
# The command line

Written by `python -m api.cli.reference`; a test compares this page with the commands.

`ask`, `route` and everything about experts, strategies, skills, profiles and questions talk to a running service when one
answers at `--url` (`CONSILIUM_URL`, default `http://127.0.0.1:8080`). When the default address does not answer, they do the
same in their own process on the same database, and say so on stderr; an address that was given must answer. `--local` works
in the own process in any case.

Results go to stdout, everything else to stderr. `--json` prints JSON for programs (`eval … --json OUT` writes it to a file).
Colours and progress bars appear on a terminal only. Exit codes: 0 done, 1 not done (a failure, or a check that failed), 2 the input
has to change, 130 interrupted. An error is one line, `error: …`, on stderr.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *_commands(typer.main.get_command(app), "consilium")])


def _commands(command: Any, path: str) -> Iterator[str]:
    subcommands = getattr(command, "commands", None)
    if subcommands is not None:
        if path != "consilium":
            yield f"## {path}\n\n{command.help}\n"
        for name, inner in subcommands.items():
            yield from _commands(inner, f"{path} {name}")
        return
    level = "##" if path.count(" ") == 1 else "###"
    yield f"{level} {path}\n\n{' '.join(command.help.split())}\n\n```\n{_usage(command, path)}\n```\n"
    if rows := list(_rows(command)):
        yield "| | |\n|---|---|\n" + "\n".join(rows) + "\n"


def _usage(command: Any, path: str) -> str:
    with command.context_class(command, info_name=path) as context:
        pieces = command.collect_usage_pieces(context)
    return " ".join([path, *pieces])


def _rows(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = f"`{parameter.metavar or parameter.name.upper()}`"
        else:
            name = ", ".join(f"`{spelling}`" for spelling in (*parameter.opts, *parameter.secondary_opts))
        told = [parameter.help or ""]
        if isinstance(parameter.show_default, str):
            told.append(f"Default: {parameter.show_default}.")
        if parameter.envvar:
            told.append(f"Environment: `{parameter.envvar}`.")
        if parameter.required and parameter.param_type_name == "option":
            told.append("Required.")
        yield f"| {name} | {' '.join(told)} |".replace("|...", "\\|...")


if __name__ == "__main__":
    print(reference(), end="")
