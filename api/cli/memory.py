"""``consilium memory``: solved problems that strategies with the mode ``memory`` show to experts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.connection import Server
from api.cli.failures import bad_input
from api.cli.options import JsonFlag, connected, names
from api.cli.output import cell, moment, print_json, shortened, show, table

app = typer.Typer(help="Solved problems that strategies with the mode memory show to experts.", no_args_is_help=True)

PATH = "/admin/api/memory"
_AT_ONCE = 500
"""Problems in one request; as many as the service takes."""

_WHOSE = "A key's id; _local is who comes in without a stored one."


@app.command("list")
@connected
async def list_problems(
    server: Server,
    *,
    tenant: Annotated[str | None, typer.Option(help=f"Only this tenant's. {_WHOSE}")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the last kept.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List solved problems, the last kept first."""
    async with server.connect() as client:
        rows = await client.rows(PATH, max_rows=limit, tenant=tenant)
    if as_json:
        print_json(rows)
        return
    shown = table("id", "tenant", "question", "answer", "from", "kept", "last shown")
    for row in rows:
        shown.add_row(
            cell(row["id"]), cell(row["tenant"]), cell(shortened(row["question"], 60)), cell(shortened(row["answer"], 40)),
            cell(row["source"]), moment(row["created_at"]), moment(row["used_at"]),
        )  # fmt: skip
    show(shown)


@app.command("add")
@connected
async def add_problems(
    server: Server,
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="The problem.")] = None,
    answer: Annotated[str | None, typer.Argument(metavar="ANSWER", help="Its answer, which you vouch for.")] = None,
    *,
    file: Annotated[
        Path | None, typer.Option(help="JSONL of labelled questions (question, answer, skills) instead of one problem.")
    ] = None,
    tenant: Annotated[str, typer.Option(help=f"Whose memory. {_WHOSE}")] = "_local",
    skills: Annotated[str | None, typer.Option(help="Of the one problem; several separated by commas.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Keep problems with answers that you vouch for. One whose question is there already takes its place."""
    if file is not None:
        from api.cli.questions import read_rows

        if question is not None:
            raise bad_input("give one problem, or --file with several")
        problems = [_problem(row) for row in read_rows(file)]
    elif question is not None and answer is not None:
        problems = [{"question": question, "answer": answer, "skills": names(skills) or []}]
    else:
        raise bad_input("give a problem and its answer, or --file with several")
    ids: list[str] = []
    async with server.connect() as client:
        for start in range(0, len(problems), _AT_ONCE):
            body = {"tenant": tenant, "problems": problems[start : start + _AT_ONCE]}
            ids += (await client.call("POST", PATH, body=body))["ids"]
    if as_json:
        print_json({"tenant": tenant, "ids": ids})
    else:
        print(f"kept {len(ids)} solved problem{'s' * (len(ids) != 1)} of {tenant}")


@app.command("delete")
@connected
async def delete_problem(
    server: Server, problem: Annotated[str, typer.Argument(metavar="ID", help="The problem's id.")], as_json: JsonFlag = False
) -> None:
    """Forget one problem."""
    from api.cli.client import at

    async with server.connect() as client:
        await client.call("DELETE", at(PATH, problem))
    if as_json:
        print_json({"removed": [problem]})
    else:
        print(f"deleted {problem}")


@app.command("clear")
@connected
async def clear_memory(
    server: Server, tenant: Annotated[str, typer.Argument(metavar="TENANT", help=_WHOSE)], as_json: JsonFlag = False
) -> None:
    """Forget all of one tenant's problems."""
    async with server.connect() as client:
        told = await client.call("DELETE", PATH, params={"tenant": tenant})
    if as_json:
        print_json(told)
    else:
        print(f"deleted {told['num_deleted']} of {tenant}")


def _problem(row: dict[str, Any]) -> dict[str, Any]:
    return {"question": row["question"], "answer": str(row["answer"]), "skills": row.get("skills") or []}
