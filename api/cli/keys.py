"""``consilium keys``: who may come in, what each key may use, and what it used."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.connection import Server
from api.cli.failures import bad_input
from api.cli.options import JsonFlag, connected, names
from api.cli.output import cell, moment, note, print_json, show, table

app = typer.Typer(help="Create, limit, rotate and revoke API keys, and see what they used.", no_args_is_help=True)

PATH = "/admin/api/keys"
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id.")]
_LIMITS = {
    "requests_per_minute": "requests/min",
    "tokens_per_minute": "tokens/min",
    "max_concurrency": "at once",
    "tokens_per_day": "tokens/day",
    "tokens_per_month": "tokens/month",
    "usd_per_day": "$/day",
    "usd_per_month": "$/month",
}


@app.command("create")
@connected
async def create_key(
    server: Server,
    *,
    key_id: KeyId,
    name: Annotated[str | None, typer.Option(help="Whose it is, what for.")] = None,
    role: Annotated[str | None, typer.Option(help="On the admin plane: viewer, editor or owner. Left out: none.")] = None,
    labels: Annotated[str | None, typer.Option(help="Access labels that it holds, separated by commas; * is every one.")] = None,
    experts: Annotated[str | None, typer.Option(help="The only experts that it may use, separated by commas.")] = None,
    strategies: Annotated[str | None, typer.Option(help="The only strategies that it may use, separated by commas.")] = None,
    expires: Annotated[str | None, typer.Option(help="A date (2026-12-31, its end) or a moment (2026-12-31T12:00:00Z), of UTC.")] = None,
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests a minute.")] = None,
    tpm: Annotated[int | None, typer.Option(min=1, help="Tokens a minute, of prompts and answers.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests at once.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=1, help="Tokens a day.")] = None,
    tokens_per_month: Annotated[int | None, typer.Option(min=1, help="Tokens a month.")] = None,
    usd_per_day: Annotated[float | None, typer.Option(help="US dollars a day.")] = None,
    usd_per_month: Annotated[float | None, typer.Option(help="US dollars a month.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Create a key and print it, once: only a hash of it is kept."""
    limits = {
        "requests_per_minute": rpm, "tokens_per_minute": tpm, "max_concurrency": concurrency, "tokens_per_day": tokens_per_day,
        "tokens_per_month": tokens_per_month, "usd_per_day": usd_per_day, "usd_per_month": usd_per_month,
    }  # fmt: skip
    given: dict[str, Any] = {
        "id": key_id, "name": name, "role": role, "labels": names(labels), "experts": names(experts), "strategies": names(strategies),
        "expires_at": expires, "limits": {field: value for field, value in limits.items() if value is not None},
    }  # fmt: skip
    async with server.connect() as client:
        made = await client.call("POST", PATH, body={field: value for field, value in given.items() if value is not None})
    _tell_secret(made, as_json=as_json)


@app.command("list")
@connected
async def list_keys(server: Server, as_json: JsonFlag = False) -> None:
    """List the keys, revoked ones too."""
    async with server.connect() as client:
        rows = await client.rows(PATH)
    if as_json:
        print_json(rows)
        return
    shown = table("key", "state", "role", "begins with", "labels", "limits", "expires", "last used", "name")
    for row in rows:
        shown.add_row(
            cell(row["id"]), cell(row["state"]), cell(row["role"]), cell(f"{row['prefix']}…"), cell(row["labels"]), cell(_limits(row)),
            moment(row["expires_at"]), moment(row.get("last_used_at")), cell(row["name"]),
            style=None if row["state"] == "active" else "dim",
        )  # fmt: skip
    show(shown)
    if not rows:
        note("no keys yet: create one with 'consilium keys create NAME'")


@app.command("show")
@connected
async def show_key(server: Server, key_id: KeyId, as_json: JsonFlag = False) -> None:
    """Show one key: rights, limits, and when it was used last."""
    from api.cli.client import at

    async with server.connect() as client:
        row = await client.get(at(PATH, key_id))
    if as_json:
        print_json(row)
        return
    shown = table("field", "value", show_header=False)
    for field, value in row.items():
        if value in (None, [], {}, ""):
            continue
        if field == "limits":
            shown.add_row("limits", cell(_limits(row)))
        elif field == "secrets":
            until = (f"{s['prefix']}…" + (f" until {moment(s['until'])}" if s["until"] else "") for s in value)
            shown.add_row("secrets", cell(", ".join(until)))
        else:
            shown.add_row(cell(field), moment(value) if field.endswith("_at") else cell(value))
    show(shown)


@app.command("rotate")
@connected
async def rotate_key(
    server: Server,
    key_id: KeyId,
    overlap: Annotated[float, typer.Option(min=0, help="Seconds for which the old secret goes on to work.")] = 0.0,
    as_json: JsonFlag = False,
) -> None:
    """Give a key a new secret and print it, once."""
    from api.cli.client import at

    async with server.connect() as client:
        made = await client.call("POST", at(PATH, key_id) + "/rotate", body={"overlap_s": overlap})
    _tell_secret(made, as_json=as_json)


@app.command("revoke")
@connected
async def revoke_keys(
    server: Server, keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Which ones.")], as_json: JsonFlag = False
) -> None:
    """Revoke keys, for good. Every process follows within a second."""
    from api.cli.client import at

    async with server.connect() as client:
        for key in keys:
            await client.call("DELETE", at(PATH, key))
            if not as_json:
                print(f"revoked {key}")
    if as_json:
        print_json({"revoked": keys})


@app.command("usage")
@connected
async def show_usage(
    server: Server,
    *,
    key_id: Annotated[str | None, typer.Argument(metavar="[KEY]", help="The key's id; all keys when none is named.")] = None,
    since: Annotated[str | None, typer.Option(help="From this UTC day on, as in 2026-11-01.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to this UTC day, included.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for programs and spreadsheets.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what keys used: by key, day and expert; a row without an expert counts the key's requests."""
    if as_csv and as_json:
        raise bad_input("--csv and --json exclude each other")
    asked = {"key": key_id, "since": since, "until": until, "format": "csv" if as_csv else "json"}
    async with server.connect() as client:
        response = await client.request("GET", f"{PATH}/usage", params=asked)
    if as_csv:
        print(response.text, end="")
        return
    rows = response.json()["data"]
    if as_json:
        print_json(rows)
        return
    numbers = ("requests", "calls", "failed", "prompt tokens", "answer tokens", "US dollars")
    shown = table("key", "day", "expert", *numbers, right=numbers)
    for row in rows:
        shown.add_row(
            cell(row["key"]), cell(row["day"]), cell(row["expert"]), cell(row["requests"] or None), cell(row["calls"] or None),
            cell(row["failed"] or None), cell(row["prompt_tokens"] or None), cell(row["completion_tokens"] or None),
            f"{row['usd']:.6f}" if row["usd"] else "",
        )  # fmt: skip
    show(shown)


def _tell_secret(made: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    print(made["key"])
    note(f"this is the key {made['id']}: keep it now, it is not shown again")


def _limits(row: dict[str, Any]) -> str:
    return ", ".join(f"{value:g} {_LIMITS[field]}" for field, value in row["limits"].items() if value is not None)
