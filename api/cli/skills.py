"""``consilium skills``: the labels that queries, questions and profiles share."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.connection import Server
from api.cli.options import JsonFlag, connected
from api.cli.output import cell, print_json, show, table

app = typer.Typer(help="The skills that queries are matched to.", no_args_is_help=True)

PATH = "/admin/api/skills"

SkillName = Annotated[str, typer.Argument(metavar="SKILL", help="The skill's name.")]


@app.command("list")
@connected
async def list_skills(server: Server, as_json: JsonFlag = False) -> None:
    """List the skills."""
    async with server.connect() as client:
        rows = await client.rows(PATH)
    if as_json:
        print_json(rows)
        return
    shown = table("skill", "description")
    for row in rows:
        shown.add_row(cell(row["name"]), cell(row["description"]))
    show(shown)


@app.command("add")
@connected
async def add_skill(
    server: Server,
    skill: SkillName,
    description: Annotated[str, typer.Option(help="What it covers, in one sentence.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Add a skill, so that experts can declare it. Questions and profile runs add theirs by themselves."""
    async with server.connect() as client:
        made = await client.call("POST", PATH, body={"name": skill, "description": description})
    if as_json:
        print_json(made)
    else:
        print(f"added {skill}")


@app.command("remove")
@connected
async def remove_skill(server: Server, skill: SkillName, as_json: JsonFlag = False) -> None:
    """Remove a skill that nothing uses any more."""
    from urllib.parse import quote

    async with server.connect() as client:
        await client.call("DELETE", f"{PATH}/{quote(skill, safe='')}")
    if as_json:
        print_json({"removed": [skill]})
    else:
        print(f"removed {skill}")
