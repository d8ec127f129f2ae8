"""``consilium questions``: the labelled questions that experts are measured on and queries are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.bodies import bodies_of
from api.cli.connection import Server
from api.cli.options import JsonFlag, connected
from api.cli.output import cell, note, print_json, shortened, show, table

if TYPE_CHECKING:
    from api.cli.client import ApiClient

app = typer.Typer(help="The labelled questions that experts are measured on.", no_args_is_help=True)

PATH = "/admin/api/questions"


@app.command("add")
@connected
async def add_questions(
    server: Server,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL: question, answer, and id, category, skills, options, grader.")],
    source: Annotated[str | None, typer.Option(help="Where they come from; default the file's name.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Add labelled questions; one with a known id is replaced. A skill that looks like a misspelling of a known one is refused:
    'consilium skills add' makes it a skill of its own."""
    rows = read_rows(file)
    async with server.connect() as client:
        await upload(client, rows, source=source or file.name)
    if as_json:
        print_json({"num_stored": len(rows), "ids": [row["id"] for row in rows]})
    else:
        print(f"stored {len(rows)} questions")


@app.command("list")
@connected
async def list_questions(
    server: Server,
    skill: Annotated[str | None, typer.Option(help="Only those of this skill.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most questions shown.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List labelled questions."""
    async with server.connect() as client:
        rows = await client.rows(PATH, max_rows=limit, skill=skill)
    if as_json:
        print_json(rows)
        return
    shown = table("id", "skills", "question", "answer")
    for row in rows:
        shown.add_row(
            cell(row["id"]),
            cell(row.get("skills") or row.get("category")),
            cell(shortened(row["question"], 80)),
            cell(shortened(row["answer"], 30)),
        )
    show(shown)
    if len(rows) == limit:
        note(f"the first {limit}; --limit shows more")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The questions of *file* as the API takes them, each with its id. Raises ``InvalidRequest`` naming line and field."""
    from evaluation.labelled import read_labelled, row_of

    return [row_of(question) for question in read_labelled(file)]


async def upload(client: ApiClient, rows: list[dict[str, Any]], *, source: str) -> None:
    """Store *rows*, in bodies of bounded size, one of every skill first: so each new skill is compared with those that were known
    before, and not with what an earlier body has made known."""
    for body in bodies_of(one_of_each_skill_first(rows)):
        await client.call("POST", PATH, body={"questions": body, "source": source})


def one_of_each_skill_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """*rows* in their order, but before all others those that are the first with one of their skills (or their category)."""
    seen: set[str] = set()
    first: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for row in rows:
        labels = set(row.get("skills") or filter(None, [row.get("category")]))
        (others if labels <= seen else first).append(row)
        seen |= labels
    return first + others
