"""One request, explained: the API's explain object (docs/http-api.md) as figures for a page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.chat import Usage
from domain.experts import Price
from domain.spending import cost

Json = Mapping[str, Any]
MAX_OTHERS = 20
"""Experts that were not chosen and are shown: the best of them."""
_FREE = Price()
_BEFORE = "annotator"
"""The role of calls that are made to decide."""
_AFTER = "aggregator"


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time. ``x`` and ``width`` are shares of the whole, in [0, 1]."""

    name: str
    kind: str
    x: float
    width: float
    took_ms: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call, with what it cost."""

    call: Json
    nano_usd: int
    is_answer: bool = False
    """Whether the answer is in its words."""

    @property
    def text(self) -> str | None:
        found = self.call.get("text")
        return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that a page shows of one request."""

    told: Json
    selected: Sequence[Json]
    others: Sequence[Json]
    num_others: int
    """All that were considered and not chosen, also those that are not shown."""
    top_score: float
    calls: Sequence[CallRow]
    spans: Sequence[Span]
    nano_usd: int
    num_tokens: int


def explained(told: Json, prices: Mapping[str, Price]) -> Explanation:
    """*told* with the costs at *prices*."""
    considered: Sequence[Json] = told.get("considered") or ()
    chosen = [expert for expert in considered if expert["selected"]]
    others = sorted((expert for expert in considered if not expert["selected"]), key=lambda expert: -expert["score"])
    known = (told.get("detail") or {}).get("num_considered") or len(considered)
    made: Sequence[Json] = told.get("calls") or ()
    last = max((i for i, call in enumerate(made) if call["expert"] == told.get("answered_by") and call["status"] == "ok"), default=-1)
    calls = [CallRow(call, _cost(call, prices), number == last) for number, call in enumerate(made)]
    return Explanation(
        told=told,
        selected=chosen,
        others=others[:MAX_OTHERS],
        num_others=max(known - len(chosen), len(others)),
        top_score=max((expert["score"] for expert in considered), default=0.0) or 1.0,
        calls=calls,
        spans=spans_of(told),
        nano_usd=sum(row.nano_usd for row in calls),
        num_tokens=sum(_tokens(row.call, "total_tokens") for row in calls),
    )


def spans_of(told: Json) -> list[Span]:
    """When what ran: routing, then the calls from when each began."""
    timings, calls = told.get("timings_ms") or {}, told.get("calls") or ()
    route, experts = timings.get("route") or 0.0, timings.get("experts") or 0.0
    begun = [(call, call.get("started_ms")) for call in calls]
    timed = [(call, float(at)) for call, at in begun if at is not None]
    if len(timed) < len(begun):
        timed = _in_order(calls, route)
    whole = max(timings.get("total") or 0.0, route + experts, 0.001, *(begins + call["latency_ms"] for call, begins in timed))
    return [Span("routing", "route", 0.0, _width(0.0, route, whole), route), *(_call_span(call, begins, whole) for call, begins in timed)]


def _in_order(calls: Sequence[Json], route: float) -> list[tuple[Json, float]]:
    """Of a trace that does not tell when calls began: the candidates at once (those of a cascade one after the other), then what made one
    answer of theirs."""
    timed: list[tuple[Json, float]] = []
    candidates = [call for call in calls if call["role"] not in {_BEFORE, _AFTER}]
    joined = max((call["latency_ms"] for call in candidates if call.get("stage") is None), default=0.0)
    stages: dict[int, float] = {}
    for call in calls:
        took = call["latency_ms"]
        if call["role"] == _BEFORE:
            begins = 0.0
        elif call["role"] == _AFTER:
            begins = max(route + joined, *(end for end in stages.values())) if stages else route + joined
        elif (stage := call.get("stage")) is not None:
            begins = stages.get(stage - 1, route)
            stages[stage] = max(stages.get(stage, 0.0), begins + took)
        else:
            begins = route
        timed.append((call, begins))
    return timed


def _call_span(call: Json, begins: float, total: float) -> Span:
    kind = "error" if call["status"] == "error" else call["role"]
    note = "" if call["status"] == "ok" else call["status"]
    x = min(1.0, begins / total)
    return Span(f"{call['expert']} ({call['role']})", kind, x, _width(x, call["latency_ms"], total), call["latency_ms"], note)


def _width(x: float, took: float, total: float) -> float:
    """So wide that it can be seen."""
    return max(0.004, min(1.0 - x, took / total))


def _cost(call: Json, prices: Mapping[str, Price]) -> int:
    usage = Usage(_tokens(call, "prompt_tokens"), _tokens(call, "completion_tokens"))
    return cost(prices.get(call["expert"], _FREE), usage)


def _tokens(call: Json, name: str) -> int:
    value = (call.get("usage") or {}).get(name)
    return value if isinstance(value, int) else 0
