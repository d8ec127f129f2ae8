"""``consilium strategies``: the named recipes, each a virtual model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.connection import Server
from api.cli.options import JsonFlag, connected
from api.cli.output import cell, print_json, show, table

app = typer.Typer(help="Look at strategies: router, number of experts, aggregator, budget.", no_args_is_help=True)

PATH = "/admin/api/strategies"


@app.command("list")
@connected
async def list_strategies(server: Server, as_json: JsonFlag = False) -> None:
    """List the strategies."""
    async with server.connect() as client:
        rows = await client.rows(PATH)
    if as_json:
        print_json(rows)
        return
    shown = table("model", "router", "pick", "aggregator", "fallback", "max calls", "description", right=("max calls",))
    for row in rows:
        shown.add_row(
            cell(f"consilium/{row['id']}"), cell(row["router"]), cell(_pick(row["pick"])), cell(row["aggregator"]),
            cell(row.get("fallback_expert")), cell(row["max_calls"]), cell(row["description"]), style=None if row["enabled"] else "dim",
        )  # fmt: skip
    show(shown)


@app.command("show")
@connected
async def show_strategy(
    server: Server, strategy: Annotated[str, typer.Argument(metavar="STRATEGY", help="The strategy's id.")], as_json: JsonFlag = False
) -> None:
    """Show one strategy."""
    from api.cli.client import at

    async with server.connect() as client:
        row = await client.get(at(PATH, strategy.removeprefix("consilium/")))
    if as_json:
        print_json(row)
        return
    shown = table("field", "value", show_header=False)
    for name, value in row.items():
        shown.add_row(cell(name), cell(_pick(value) if name == "pick" else value))
    show(shown)


def _pick(pick: dict[str, Any]) -> str:
    threshold = f", threshold {pick['threshold']:g}" if pick["kind"] == "dynamic" else ""
    return f"{pick['kind']}, k {pick['k']}{threshold}"
