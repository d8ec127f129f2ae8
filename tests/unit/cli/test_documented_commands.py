"""The commands that the documents tell people to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from api.cli.main import app

ROOT = Path(__file__).parents[3]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "ARCHITECTURE.md",
    "zoo/README.md",
    "docs/http-api.md",
    "docs/batches.md",
    "docs/evaluation.md",
    "docs/settings.md",
)


def typed(page: str) -> list[str]:
    """Lines of code blocks that run the command, as a shell would read them."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if re.match(r"(\.venv/bin/)?consilium ", line)]


def mentioned(page: str) -> list[str]:
    """Commands in running text, which may leave out what they are given."""
    return re.findall(r"`consilium ([a-z][^`]*)`", (ROOT / page).read_text(encoding="utf-8"))


def groups_and_commands(command: Any) -> Iterator[Any]:
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from groups_and_commands(inner)


def parsed_only() -> Any:
    """The command, with every part of it done except the work."""
    command = typer.main.get_command(app)
    for part in groups_and_commands(command):
        if not hasattr(part, "commands"):
            part.callback = lambda **_: None
    return command


@pytest.mark.parametrize("line", [pytest.param(line, id=f"{page}: {line}") for page in PAGES for line in typed(page)])
def test_a_documented_command_can_be_typed(line: str) -> None:
    """It exists, with these options and as many arguments."""
    _, *arguments = shlex.split(line, comments=True)

    parsed_only().main(args=arguments, prog_name="consilium", standalone_mode=False)


@pytest.mark.parametrize("line", [pytest.param(line, id=f"{page}: {line}") for page in PAGES for line in mentioned(page)])
def test_a_mentioned_command_exists(line: str) -> None:
    """Its name, and the options that are written with it."""
    command = typer.main.get_command(app)
    words = line.split()
    while words and (inner := getattr(command, "commands", None)) is not None:
        for name in words[0].split("|"):
            assert name in inner
        command = inner[words.pop(0).split("|")[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


def test_the_pages_have_commands() -> None:
    """That they are found at all."""
    assert len(typed("README.md")) >= 5
    assert len(typed("CONTRIBUTING.md")) >= 4
