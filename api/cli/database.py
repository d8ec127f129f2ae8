"""``consilium db``: the schema of the database."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.failures import bad_input
from api.cli.options import JsonFlag
from api.cli.output import print_json

if TYPE_CHECKING:
    from experts_registry.database import Database

app = typer.Typer(help="The database's schema.", no_args_is_help=True)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the SQLite file is; default CONSILIUM_DATA_DIR, then ./data.")]


@app.command()
def upgrade(data_dir: DataDir = None, as_json: JsonFlag = False) -> None:
    """Bring the database to this version's schema; safe to repeat, and with several processes at once."""

    async def work(database: Database) -> None:
        await database.upgrade()
        await database.check()

    _tell(_with_database(data_dir, work), "up to date", as_json=as_json)


@app.command()
def check(data_dir: DataDir = None, as_json: JsonFlag = False) -> None:
    """Say whether the database can be used; exit code 1 and the reason when it cannot."""

    async def work(database: Database) -> None:
        await database.check()

    _tell(_with_database(data_dir, work), "ok", as_json=as_json)


def _tell(database: str, state: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"database": database, "state": state})
    else:
        print(f"{database}: {state}")


def _with_database(data_dir: Path | None, work: Any) -> str:
    """Do *work* on the database of the settings; its name."""
    from api.bootstrap import database_of
    from api.settings import SettingsError, load_settings

    try:
        settings = load_settings(data_dir=data_dir)
    except SettingsError as error:
        raise bad_input(str(error)) from error
    database = database_of(settings)

    async def run() -> None:
        doing: Coroutine[Any, Any, None] = work(database)
        try:
            await doing
        finally:
            await database.close()

    if settings.database_url is None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    asyncio.run(run())
    return database.name
