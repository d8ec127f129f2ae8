"""``consilium audit``: who changed what, and when."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.connection import Server
from api.cli.options import JsonFlag, connected
from api.cli.output import cell, moment, print_json, show, table

PATH = "/admin/api/audit"


@connected
async def audit(
    server: Server,
    actor: Annotated[str | None, typer.Option(help="Only what this key did; 'admin' is the admin key.")] = None,
    path: Annotated[str | None, typer.Option(help="How the address begins, as in /admin/api/experts.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the newest.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Show who changed what, newest first. With --json also what it was before and after; never a secret."""
    async with server.connect() as client:
        rows = await client.rows(PATH, max_rows=limit, actor=actor, path=path)
    if as_json:
        print_json(rows)
        return
    shown = table("when", "who", "role", "what", "", "request", right=("",))
    for row in rows:
        shown.add_row(
            moment(row["at"]), cell(row["actor"]), cell(row["role"]), cell(f"{row['method']} {row['path']}"), cell(row["status"]),
            cell(row["request_id"]),
        )  # fmt: skip
    show(shown)
