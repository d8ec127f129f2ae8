"""``consilium``: the command line's entry point. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from api.cli import (
    admit,
    ask,
    audit,
    batch,
    database,
    evaluate,
    experts,
    feedback,
    keys,
    memory,
    profile,
    questions,
    route_map,
    skills,
    strategies,
    workers,
)
from api.cli.failures import BAD_INPUT, FAILED, CommandFailed, from_domain
from api.cli.options import JsonFlag
from api.cli.phrases import PhraseGroup
from api.cli.serve import serve
from domain.errors import ConsiliumError

app = typer.Typer(
    name="consilium",
    cls=PhraseGroup,
    help="One OpenAI-compatible endpoint in front of many expert language models, chosen by measured skill.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(ask.ask)
app.command()(ask.route)
app.command("route map")(route_map.route_map)
app.add_typer(experts.app, name="experts")
app.add_typer(strategies.app, name="strategies")
app.add_typer(skills.app, name="skills")
app.add_typer(profile.app, name="profile")
app.add_typer(questions.app, name="questions")
app.add_typer(feedback.app, name="feedback")
app.add_typer(memory.app, name="memory")
app.add_typer(workers.app, name="workers")
app.add_typer(batch.app, name="batch")
app.add_typer(evaluate.app, name="eval")
app.command()(admit.admit)
app.add_typer(keys.app, name="keys")
app.command()(audit.audit)
app.add_typer(database.app, name="db")


@app.command()
def version(as_json: JsonFlag = False) -> None:
    """Print the version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    from api.cli.output import print_json

    try:
        number = installed("consilium")
    except PackageNotFoundError:  # run from a folder that was never installed
        number = "0"
    if as_json:
        print_json({"version": number, "python": sys.version.split()[0]})
    else:
        print(f"consilium {number}")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. 2: the input has to change; 1: it could not be done; 130: interrupted."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=None if arguments is None else list(arguments), prog_name="consilium", standalone_mode=False)
    except CommandFailed as failure:
        return _fail(failure.message, failure.exit_code)
    except ConsiliumError as error:
        told = from_domain(error)
        return _fail(told.message, told.exit_code)
    except BrokenPipeError:
        # The reader has seen enough (| head). Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error), FAILED)
    except typer.Abort:
        return _fail("given up", FAILED)
    except typer.TyperException as error:
        return _usage(error)
    return code if isinstance(code, int) else 0


def _usage(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "consilium"
    message = error.format_message()
    if not message or message.startswith("Usage:"):  # a group without a command: its help says which there are
        print(message or "Usage: consilium COMMAND", file=sys.stderr)
        return BAD_INPUT
    return _fail(f"{message[:1].lower()}{message[1:].removesuffix('.')} (see '{path} --help')", BAD_INPUT)


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def main() -> NoReturn:
    """The ``consilium`` command."""
    sys.exit(run())


if __name__ == "__main__":
    main()
