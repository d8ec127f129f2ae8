"""``consilium route map``: which experts to keep at a budget, and who serves which category."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.connection import Server
from api.cli.failures import bad_input
from api.cli.options import JsonFlag, connected
from api.cli.output import cell, note, percent, print_json, show, table

_PATH = "/admin/api/category-map"
_NEEDS = ("database", "encoder")


@connected
async def route_map(
    server: Server,
    *,
    budget_b: Annotated[float | None, typer.Option(help="Billions of parameters that all kept experts may have together.")] = None,
    budget_mb: Annotated[float | None, typer.Option(help="MB that all kept experts may take together, instead.")] = None,
    generalist: Annotated[
        str | None, typer.Option(help="Who answers what belongs to no category clearly; the best over everything when left out.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show which experts to keep, and who serves which category of the labelled questions: the map of the router 'category', solved
    exactly from what was measured. Changes nothing. (To route the question "map", put -- before it.)"""
    if budget_b is not None and budget_mb is not None:
        raise bad_input("--budget-b and --budget-mb contradict each other: give one of them")
    async with server.connect(needs=_NEEDS) as client:
        found = await client.get(_PATH, budget_b=budget_b, budget_mb=budget_mb, generalist=generalist)
    if as_json:
        print_json(found)
        return
    _show_categories(found)
    _show_experts(found)
    _show_sums(found)


def _show_categories(found: dict[str, Any]) -> None:
    right = ("share", "accuracy", "generalist's")
    shown = table("category", "share", "served by", "accuracy", "generalist's", title="Categories", right=right)
    for row in found["categories"]:
        shown.add_row(
            cell(row["category"]), percent(row["share"]), cell(row["expert"]), percent(row["score"]), percent(row["generalist_score"])
        )
    show(shown)


def _show_experts(found: dict[str, Any]) -> None:
    right = ("parameters", "memory", "accuracy")
    shown = table("", "expert", "parameters", "memory", "accuracy", "serves", title="Experts", right=right)
    for row in sorted(found["experts"], key=lambda row: (not row["kept"], row["expert"])):
        serves = [*row["categories"], *(["what is unclear"] if row["expert"] == found["generalist"] else [])]
        shown.add_row(
            "✓" if row["kept"] else "", cell(row["expert"]), _size(row["parameters_b"], "b"), _size(row["memory_mb"], "MB"),
            percent(row["score"]), cell(serves), style=None if row["kept"] else "dim",
        )  # fmt: skip
    show(shown)


def _show_sums(found: dict[str, Any]) -> None:
    budget = "no budget" if found["budget"] is None else f"budget {_size(found['budget'], found['unit'])}"
    total = "" if found["total"] is None else f", kept experts take {_size(found['total'], found['unit'])}"
    active = "" if found["average_active_b"] is None else f", {_size(found['average_active_b'], 'b')} active on average"
    print(f"{budget}{total}{active}")
    print(
        f"expected accuracy {percent(found['expected_score'])} where categories are known,"
        f" {percent(found['generalist_score'])} by {found['generalist']} alone"
    )
    print(
        f"categories are found by {found['classifier']}, {percent(found['classifier_accuracy'])} right on held-out questions; below a"
        f" confidence of {found['min_confidence']:g} ({percent(found['fallback_share'])} of them) {found['generalist']} answers"
    )
    if found["not_measured"]:
        note(f"not measured, and so left out: {', '.join(found['not_measured'])}")


def _size(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:,.4g} {unit}"
