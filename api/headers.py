"""``x-consilium-*``: which experts answered, and why, in header values that every proxy lets through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from starlette.requests import Request

from domain.chat import ChatRequest
from domain.plan import CallRole
from domain.registry import RegistrySnapshot
from domain.routing import RoutingDecision
from domain.trace import Trace
from orchestrator.resolve import resolve
from orchestrator.stream import AnswerStream

MAX_VALUE_CHARS = 512
"""Longest header value: common proxies bound all headers together at 8 kB."""

_ASKED = "consilium.asked"
"""Key of the scope: strategy and router."""
EXPLICIT = "explicit"
"""What is told as the strategy when one expert was asked for by its id."""


def asked_strategy(request: Request, asked: ChatRequest, snapshot: RegistrySnapshot) -> str:
    """The strategy that *asked* names, ``EXPLICIT`` for an expert's id. Raises ``ModelNotFound``.

    It is kept with *request*, together with the router: an error of the service carries them (``api.errors``).
    """
    target = resolve(asked.model, snapshot, asked.access)
    strategy = EXPLICIT if target.expert is not None else target.strategy.id
    router = asked.options.router or target.strategy.router
    request.scope[_ASKED] = strategy, router
    return strategy


def known_headers(request: Request) -> dict[str, str]:
    """What ``asked_strategy`` has kept; nothing when a request did not come so far."""
    strategy, router = request.scope.get(_ASKED, (None, None))
    return _clean({"x-consilium-strategy": strategy, "x-consilium-router": router})


def decision_headers(*, strategy: str | None, decision: RoutingDecision | None) -> dict[str, str]:
    """What is known when the routing is done, which is before the first token. No strategy: one expert was asked for."""
    return _clean(_of_decision(strategy, decision))


def _of_decision(strategy: str | None, decision: RoutingDecision | None) -> dict[str, str | None]:
    if decision is None:
        return {"x-consilium-strategy": strategy}
    return {
        "x-consilium-strategy": strategy or EXPLICIT,
        "x-consilium-router": decision.router,
        "x-consilium-experts": _list(decision.selected),
        "x-consilium-skills": _list([match.skill for match in decision.skills]),
        "x-consilium-fallback": decision.reason if decision.fallback else None,
    }


def trace_headers(trace: Trace) -> dict[str, str]:
    """What is known when the answer is complete: the experts are those that answered, best first."""
    timings, decision = trace.timings, trace.decision
    told = _of_decision(trace.strategy, decision)
    if decision is not None:
        answered = {call.expert_id for call in trace.calls if call.role is CallRole.CANDIDATE and call.status == "ok"}
        selected: Sequence[str] = decision.selected
        if decision.cascade is not None:  # in it the one whose answer it is stands first
            selected = sorted(selected, key=lambda expert: expert != trace.answered_by)
            told["x-consilium-cascade"] = _list(tuple(_stages(trace)))
        told["x-consilium-experts"] = _list([expert for expert in selected if expert in answered]) or told["x-consilium-experts"]
    told["x-consilium-aggregator"] = trace.aggregator
    return _clean(told) | {
        "x-consilium-calls": str(trace.num_calls),
        "x-consilium-route-ms": f"{timings.route:.2f}",
        "x-consilium-overhead-ms": f"{timings.overhead:.2f}",
    }


def stream_headers(stream: AnswerStream) -> dict[str, str]:
    """What is known when a stream opens: the plan. What came of it is told by the object ``consilium`` at the stream's end."""
    return decision_headers(strategy=stream.strategy, decision=stream.decision) | _clean(
        {
            "x-consilium-aggregator": stream.announced_aggregator,
            "x-consilium-calls": str(stream.num_planned_calls),
            "x-consilium-route-ms": f"{stream.route_ms:.2f}",
            # So far: nothing but routing takes time before the experts. The final figure is in the object ``consilium``.
            "x-consilium-overhead-ms": f"{stream.overhead_ms:.2f}",
        }
    )


def _stages(trace: Trace) -> Iterator[str]:
    """Each expert of a cascade that was asked, with how sure its answer was and what became of it."""
    if trace.decision is None or trace.decision.cascade is None:
        return
    told: set[int] = set()
    for call in trace.calls:
        if call.stage is None or call.role is not CallRole.CANDIDATE or call.stage in told:
            continue
        told.add(call.stage)
        became = "accepted" if (call.note or "").startswith("accepted") else "escalated" if call.confidence is not None else call.status
        yield f"{call.expert_id} {became}" if call.confidence is None else f"{call.expert_id} {call.confidence:.2f} {became}"


def _list(names: Sequence[str]) -> str:
    if len(names) <= 1:
        return names[0].replace(",", " ") if names else ""
    return ", ".join(dict.fromkeys([name.replace(",", " ") for name in names]))


def _clean(values: Mapping[str, str | None]) -> dict[str, str]:
    found = {}
    for name, value in values.items():
        if not value:
            continue
        if len(value) <= MAX_VALUE_CHARS and value.isascii() and value.isprintable():  # nearly always
            found[name] = value.strip()
        else:
            found[name] = header_value(value)
    return found


def header_value(text: str) -> str:
    """*text* as a header may carry it: printable latin-1 on one line, at most ``MAX_VALUE_CHARS``."""
    given = text[: 2 * MAX_VALUE_CHARS]  # looked at letter by letter, and callers choose some names
    safe = "".join(c if c.isprintable() else " " for c in given).encode("latin-1", "replace").decode("latin-1").strip()
    return safe if len(safe) <= MAX_VALUE_CHARS else safe[: MAX_VALUE_CHARS - 3] + "..."
