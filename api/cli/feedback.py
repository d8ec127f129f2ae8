"""``consilium feedback``: what users said about answers, and what it adds up to."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.connection import Server
from api.cli.failures import bad_input
from api.cli.options import JsonFlag, connected, names
from api.cli.output import cell, moment, percent, print_json, show, table

app = typer.Typer(help="What users said about answers, and what was learnt from it.", no_args_is_help=True)

PATH, PROFILES = "/admin/api/feedback", "/admin/api/feedback-profiles"

FeedbackId = Annotated[str, typer.Argument(metavar="ID", help="The feedback's id.")]


@app.command("add")
@connected
async def add_feedback(
    server: Server,
    request_id: Annotated[str, typer.Argument(metavar="REQUEST", help="x-request-id of the answer.")],
    *,
    score: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="How good the answer is.")] = None,
    correct: Annotated[bool | None, typer.Option("--correct/--wrong", help="Whether the answer is right.")] = None,
    correct_expert: Annotated[
        str | None, typer.Option(help="Which of the experts that were considered was right; several separated by commas.")
    ] = None,
    own_id: Annotated[str | None, typer.Option("--id", help="A name for this, where more is said of the same request.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say how good an answer was."""
    said: dict[str, Any] = {"score": score, "correct": correct, "correct_expert": names(correct_expert), "id": own_id}
    body = {"request_id": request_id, **{name: value for name, value in said.items() if value is not None}}
    if not body.keys() & {"score", "correct", "correct_expert"}:
        raise bad_input("say one thing of the answer: --score, --correct, --wrong or --correct-expert")
    async with server.connect() as client:
        kept = await client.call("POST", "/v1/feedback", body=body)
    if as_json:
        print_json(kept)
    else:
        print(f"{kept['id']}: {_scores(kept) or 'kept; it says nothing of a single expert'}")


@app.command("list")
@connected
async def list_feedback(
    server: Server,
    *,
    expert: Annotated[str | None, typer.Option(help="Only what speaks of this expert.")] = None,
    request_id: Annotated[str | None, typer.Option("--request", help="Only what was said of this request.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List what was said, newest first."""
    async with server.connect() as client:
        rows = await client.rows(PATH, max_rows=limit, expert=expert, request_id=request_id)
    if as_json:
        print_json(rows)
        return
    shown = table("id", "when", "request", "experts", "strategy", "skills", "status")
    for row in rows:
        skills = ", ".join(match["skill"] for match in row["skills"])
        shown.add_row(
            cell(row["id"]), moment(row["created_at"]), cell(row["request_id"]), cell(_scores(row) or row["resets"]),
            cell(row["strategy"]), cell(skills), cell(row["status"]), style=None if row["status"] == "counts" else "dim",
        )  # fmt: skip
    show(shown)


@app.command("rollback")
@connected
async def roll_back(server: Server, feedback: FeedbackId, as_json: JsonFlag = False) -> None:
    """Take something back: what was learnt from it is forgotten."""
    from api.cli.client import at

    async with server.connect() as client:
        kept = await client.call("POST", f"{at(PATH, feedback)}/rollback")
    if as_json:
        print_json(kept)
    else:
        print(f"rolled back {feedback}")


@app.command("experts")
@connected
async def list_experts(server: Server, as_json: JsonFlag = False) -> None:
    """Show what feedback says of each expert: accuracy over the last answers, alarms, whether its figures have settled."""
    async with server.connect() as client:
        rows = await client.rows(PROFILES)
    if as_json:
        print_json(rows)
        return
    right = ("feedback", "accuracy", "surprise", "alarms")
    shown = table("expert", "feedback", "accuracy", "surprise", "state", "alarms", "last alarm", right=right)
    for row in rows:
        state = "worse than before" if row["drifted"] else "settled" if row["frozen"] else "learning"
        surprise = "" if row["surprise"] is None else f"{row['surprise']:.3f}"
        shown.add_row(
            cell(row["expert"]), str(row["num_feedback"]), percent(row["accuracy"]), surprise, state, str(row["num_alarms"]),
            moment(row["drifted_at"]), style="red" if row["drifted"] else None,
        )  # fmt: skip
    show(shown)


@app.command("reset")
@connected
async def reset_expert(
    server: Server, expert: Annotated[str, typer.Argument(metavar="EXPERT", help="The expert's id.")], as_json: JsonFlag = False
) -> None:
    """Begin anew with one expert, one that was replaced for instance: what was said of it so far no longer counts."""
    from api.cli.client import at

    async with server.connect() as client:
        kept = await client.call("POST", f"{at(PROFILES, expert)}/reset")
    if as_json:
        print_json(kept)
    else:
        print(f"{kept['id']}: {expert} begins anew")


def _scores(row: dict[str, Any]) -> str:
    return ", ".join(f"{expert} {score:g}" for expert, score in row["scores"].items())
