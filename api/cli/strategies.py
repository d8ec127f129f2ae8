"""``consilium strategies``: the named recipes, each a virtual model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.assignments import with_fields
from api.cli.connection import EVERYTHING, Server
from api.cli.explain import show_explanation
from api.cli.options import JsonFlag, connected, json_object, names
from api.cli.output import cell, percent, print_json, show, table

app = typer.Typer(help="Look at strategies and change them: router, number of experts, aggregator, budget.", no_args_is_help=True)

PATH = "/admin/api/strategies"
_MAX_POINTS = 12
"""Thresholds that are shown; ``--json`` has them all."""


@app.command("list")
@connected
async def list_strategies(server: Server, as_json: JsonFlag = False) -> None:
    """List the strategies."""
    async with server.connect() as client:
        rows = await client.rows(PATH)
    if as_json:
        print_json(rows)
        return
    shown = table("model", "router", "pick", "mode", "aggregator", "fallback", "max calls", "description", right=("max calls",))
    for row in rows:
        shown.add_row(
            cell(f"consilium/{row['id']}"), cell(row["router"]), cell(_pick(row["pick"])), cell(row["mode"]), cell(row["aggregator"]),
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
        told = {"pick": _pick, "adjustments": _adjustments}.get(name)
        shown.add_row(cell(name), cell(told(value) if told else value))
    show(shown)


@app.command("set")
@connected
async def set_fields(
    server: Server,
    strategy: Annotated[str, typer.Argument(metavar="STRATEGY", help="The strategy's id.")],
    assignments: Annotated[
        list[str],
        typer.Argument(
            metavar="FIELD=VALUE",
            help="Any field of the strategy, those inside another behind a dot: fallback_expert=generalist pick.k=2. The value is JSON, "
            "or a text; null is as if it had never been given.",
        ),
    ],
    as_json: JsonFlag = False,
) -> None:
    """Change fields of a strategy; the others stay as they are."""
    from api.cli.client import at

    fields = with_fields({}, assignments, like="set fallback_expert=generalist")
    async with server.connect() as client:
        made = await client.call("PATCH", at(PATH, strategy.removeprefix("consilium/")), body=fields)
    if as_json:
        print_json(made)
    else:
        print(f"changed {made['id']}: {', '.join(fields)}")


@app.command("try")
@connected
async def try_strategy(
    server: Server,
    strategy: Annotated[str, typer.Argument(metavar="STRATEGY", help="The strategy's id.")],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    *,
    mode: Annotated[str | None, typer.Option(help="How the experts work together, instead of the strategy's mode.")] = None,
    mode_options: Annotated[str | None, typer.Option(help="Settings of the mode and the aggregator, a JSON object.")] = None,
    effort: Annotated[str | None, typer.Option(help="How much the question is worth: none, low, medium or high.")] = None,
    max_calls: Annotated[int | None, typer.Option(min=1, help="Calls at most.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of all calls together at most.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask one question of a strategy, and tell every step: who was called for what, what became of it, how the answer was made."""
    given = {
        "mode": mode,
        "mode_options": json_object(mode_options, "--mode-options", example='{"layers": 1}'),
        "effort": effort,
        "max_calls": max_calls,
        "max_tokens": max_tokens,
    }
    options = {name: value for name, value in given.items() if value is not None} | {"explain": True}
    body = {
        "model": f"consilium/{strategy.removeprefix('consilium/')}",
        "messages": [{"role": "user", "content": question}],
        "consilium": options,
    }
    async with server.connect(needs=EVERYTHING) as client:
        answer = await client.call("POST", "/v1/chat/completions", body=body)
    if as_json:
        print_json(answer)
        return
    print(answer["choices"][0]["message"].get("content") or "")
    print()
    show_explanation(answer["consilium"])
    usage = answer.get("usage") or {}
    waited = answer["consilium"].get("sequential_tokens")
    print(f"{usage.get('total_tokens')} tokens, {waited} of them answers that were waited for one after the other")


@app.command("calibrate")
@connected
async def calibrate(
    server: Server,
    strategy: Annotated[str, typer.Argument(metavar="STRATEGY", help="The id of a strategy whose router is 'cascade'.")],
    *,
    target_cost: Annotated[
        float | None, typer.Option(min=0.0, help="Of what asking the last expert every time costs, e.g. 0.4; the best within it is chosen.")
    ] = None,
    escalation_rate: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of the questions for which another than the first expert may be asked.")
    ] = None,
    skills: Annotated[str | None, typer.Option(help="Only questions of these skills, separated by commas.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many questions; 200 when left out.")] = None,
    judge: Annotated[str | None, typer.Option(help="The expert that grades questions whose grader is 'judge'.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be chosen.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Choose a cascade's threshold: every one of its experts answers the labelled questions, and the threshold that scores best within
    the target is stored with the strategy."""
    from api.cli.client import at

    given = {
        "target_cost": target_cost, "escalation_rate": escalation_rate, "skills": names(skills), "limit": limit, "judge": judge,
        "dry_run": dry_run,
    }  # fmt: skip
    async with server.connect(needs=EVERYTHING) as client:
        path = f"{at(PATH, strategy.removeprefix('consilium/'))}/calibrate"
        found = await client.call("POST", path, body={name: value for name, value in given.items() if value is not None})
    if as_json:
        print_json(found)
        return
    shown = table("", "threshold", "accuracy", "cost", "asks on", right=("threshold", "accuracy", "cost", "asks on"))
    points = found["curve"]
    rows = {f"{point['threshold']:.4f}": ("", point) for point in points[:: max(1, len(points) // _MAX_POINTS)]}
    rows[f"{found['chosen']['threshold']:.4f}"] = ("chosen", found["chosen"])
    for told, (mark, point) in sorted(rows.items()):
        values = percent(point["accuracy"]), percent(point["cost_share"]), percent(point["escalation_rate"])
        shown.add_row(mark, told, *values, style="bold green" if mark else None)
    shown.add_row("last expert alone", "", percent(found["last_alone"]["accuracy"]), percent(1.0), "")
    show(shown)
    kept = "stored" if found["stored"] else "not stored (--dry-run)"
    print(
        f"{kept}: threshold {found['chosen']['threshold']:.4f} for {cell(found['strategy'])}, from {found['num_questions']} questions; "
        f"{found['num_without_cascade']} more had no second expert"
    )


def _adjustments(adjustments: dict[str, Any]) -> str:
    """Those that change something."""
    told = {name: value for name, value in adjustments.items() if value or (name == "allow" and value is not None)}
    return ", ".join(f"{name} {_joined(value)}" for name, value in told.items()) or "none"


def _joined(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{expert}={number:+g}" for expert, number in value.items())
    return " ".join(value) if isinstance(value, list) else f"{value:g}"


def _pick(pick: dict[str, Any]) -> str:
    threshold = f", threshold {pick['threshold']:g}" if pick["kind"] in ("dynamic", "gate") else ""
    return f"{pick['kind']}, k {pick['k']}{threshold}"
