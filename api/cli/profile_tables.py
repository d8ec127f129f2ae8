"""What was measured, as tables for a person."""

from __future__ import annotations

from typing import Any

from api.cli.output import cell, note, percent, show, table


def show_matrix(rows: list[dict[str, Any]]) -> None:
    """Skills by experts: accuracy and the number of questions."""
    skills = sorted({count["skill"] for row in rows for count in row["skills"]})
    if not skills:
        note("nothing is measured yet: 'consilium profile run' does it")
        tell_outdated(rows)
        return
    shown = table(
        "skill", *(cell(row["expert"]) for row in rows), title="Accuracy (questions)", right=[cell(row["expert"]) for row in rows]
    )
    counts = [{count["skill"]: count for count in row["skills"]} for row in rows]
    for skill in skills:
        shown.add_row(cell(skill), *(_share(by_skill.get(skill)) for by_skill in counts))
    shown.add_row("overall", *(_share(row["overall"]) for row in rows), style="bold")
    show(shown)
    tell_outdated(rows)


def tell_outdated(rows: list[dict[str, Any]]) -> None:
    """Of profiles: what was measured and counts no more."""
    for row in rows:
        if row["num_outdated"]:
            note(
                f"{row['expert']}: {row['num_outdated']} questions were answered by an older card of it and count for nothing now:"
                " 'consilium profile run' measures it again (or 'profile import --as-current', where it answers as before)"
            )


def show_aggregators(rows: list[dict[str, Any]]) -> None:
    """How often each aggregator found the right answer, per category."""
    shown = table("aggregator", "category", "accuracy", "95 %", title="Aggregators", right=("accuracy", "95 %"))
    for row in rows:
        for count in [{"category": "overall", **row["overall"]}, *row["categories"]]:
            low, high = count["interval"]
            shown.add_row(cell(row["expert"]), cell(count["category"]), _share(count), f"{100 * low:.0f} to {100 * high:.0f} %")
    show(shown)


def show_summary(run: dict[str, Any]) -> None:
    """What one run came to, per expert."""
    shown = table("expert", "correct", "of", "accuracy", "95 %", "failed", right=("correct", "of", "accuracy", "95 %", "failed"))
    for row in run.get("summary", ()):
        overall = row["overall"]
        low, high = overall["interval"]
        shown.add_row(
            cell(row["expert"]), str(overall["num_correct"]), str(overall["num_answered"]), percent(overall["accuracy"]),
            f"{100 * low:.0f} to {100 * high:.0f} %", str(row["num_failed"]), style="red" if row["stopped"] else None,
        )  # fmt: skip
    show(shown)
    for row in run.get("summary", ()):
        if row["stopped"]:
            note(f"{row['expert']} was given up: {row['stopped']}")
    print(f"run {run['id']}: {run['status']}, {run['num_recorded']} of {run['num_planned']} answers, {run['num_correct']} right")


def _share(count: dict[str, Any] | None) -> str:
    if count is None or count["accuracy"] is None:
        return ""
    return f"{100 * count['accuracy']:.0f} % ({count['num_answered']})"
