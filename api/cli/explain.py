"""A routing decision and what followed, as tables for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.cli.output import bar, cell, console, shortened, show, table

_MAX_ROWS = 12
"""Considered experts shown; the rest is counted."""
_MAX_WHY = 90


def show_decision(decision: Mapping[str, Any], *, stderr: bool = False) -> None:
    """Who was considered, with scores and reasons: the answer of ``/v1/route`` and the first half of every explanation."""
    out = console(stderr=stderr)
    parts = [f"router {decision.get('router') or 'none'}"]
    if strategy := decision.get("strategy"):
        parts.insert(0, f"strategy {strategy}")
    if decision.get("fallback"):
        parts.append("fallback")
    if category := decision.get("category"):
        parts.append(f"category {category}")
    out.print(cell(" · ".join(parts)), style="bold")
    if reason := decision.get("reason"):
        out.print(cell(reason))
    if skills := decision.get("skills"):
        _skills(skills, stderr=stderr)
    if considered := decision.get("considered"):
        _considered(considered, stderr=stderr)


def show_explanation(explanation: Mapping[str, Any], *, stderr: bool = False) -> None:
    """The object ``consilium`` of an answer."""
    show_decision(explanation, stderr=stderr)
    _calls(explanation.get("calls", ()), stderr=stderr)
    timings = explanation.get("timings_ms") or {}
    told = [f"{name.replace('_', ' ')} {value:.1f} ms" for name, value in timings.items() if value is not None]
    out = console(stderr=stderr)
    why = explanation.get("aggregator_reason")
    out.print(cell(f"aggregator {explanation.get('aggregator') or 'none'}{f': {why}' if why else ''}"))
    out.print(cell(f"request {explanation.get('request_id')}"))
    out.print(cell(" · ".join(told)), style="dim")


def _skills(skills: Sequence[Mapping[str, Any]], *, stderr: bool) -> None:
    shown = table("skill", "similarity", "weight", title="Skills found", right=("similarity", "weight"))
    for match in skills:
        shown.add_row(cell(match["skill"]), f"{match['similarity']:.3f}", f"{match['weight']:.2f}" if "weight" in match else "")
    show(shown, stderr=stderr)


def _considered(considered: Sequence[Mapping[str, Any]], *, stderr: bool) -> None:
    shown = table("", "expert", "score", "", "why", title="Experts considered", right=("score",))
    for expert in considered[:_MAX_ROWS]:
        mark, style = ("✓", "bold green") if expert["selected"] else ("", None)
        score = float(expert["score"])
        shown.add_row(
            mark, cell(expert["expert"]), f"{score:.3f}", bar(score), cell(shortened(expert.get("why", ""), _MAX_WHY)), style=style
        )
    if len(considered) > _MAX_ROWS:
        shown.add_row("", f"and {len(considered) - _MAX_ROWS} more", "", "", "")
    show(shown, stderr=stderr)


def _calls(calls: Sequence[Mapping[str, Any]], *, stderr: bool) -> None:
    if not calls:
        return
    is_cascade = any("stage" in call for call in calls)
    columns = ("expert", "role", "status", "latency", "tokens", "error", *(("stage", "confidence", "note") if is_cascade else ()))
    shown = table(*columns, title="Calls", right=("latency", "tokens", "stage", "confidence"))
    for call in calls:
        usage = call.get("usage") or {}
        shown.add_row(
            cell(call["expert"]),
            cell(call["role"]),
            cell(call["status"]),
            f"{call['latency_ms']:.0f} ms",
            cell(usage.get("total_tokens")),
            cell(call.get("error")),
            *([cell(call.get(name)) for name in ("stage", "confidence", "note")] if is_cascade else ()),
            style=None if call["status"] == "ok" else "red",
        )
    show(shown, stderr=stderr)
