"""``consilium ask`` and ``consilium route``."""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer

from api.cli.connection import EVERYTHING, Server
from api.cli.explain import show_decision, show_explanation
from api.cli.failures import bad_input
from api.cli.options import JsonFlag, connected, json_object, names
from api.cli.output import note, print_json

Question = Annotated[str, typer.Argument(metavar="QUESTION", help="The question; - reads it from standard input.")]
Model = Annotated[str | None, typer.Option(help="auto (the default), consilium/NAME for a strategy, or an expert's id.")]
StrategyName = Annotated[str | None, typer.Option(help="Short for --model consilium/NAME.")]
NumExperts = Annotated[int | None, typer.Option("--k", min=1, help="How many experts to take at most.")]
RouterName = Annotated[str | None, typer.Option(help="Another router than the strategy's.")]
RouterOptions = Annotated[
    str | None, typer.Option(metavar="JSON", help="Options of the router, over the strategy's where that names the same router.")
]
Allow = Annotated[str | None, typer.Option(metavar="IDS", help="Only these experts, with commas between.")]
Deny = Annotated[str | None, typer.Option(metavar="IDS", help="Not these experts.")]
Boost = Annotated[list[str] | None, typer.Option(metavar="ID=NUMBER", help="Added to the expert's score, -1 to 1. Repeatable.")]
PriceWeight = Annotated[float | None, typer.Option(help="What a score loses for each US dollar per million tokens.")]
LoadWeight = Annotated[float | None, typer.Option(help="What a score loses when all places of the expert are taken, 0 to 1.")]
Effort = Annotated[str | None, typer.Option(help="How much the question is worth: none, low, medium or high.")]
Seed = Annotated[int | None, typer.Option(help="Makes everything random in the routing repeatable.")]


@connected
async def ask(
    server: Server,
    *,
    question: Question,
    model: Model = None,
    strategy: StrategyName = None,
    k: NumExperts = None,
    router: RouterName = None,
    router_options: RouterOptions = None,
    allow: Allow = None,
    deny: Deny = None,
    boost: Boost = None,
    price_weight: PriceWeight = None,
    load_weight: LoadWeight = None,
    effort: Effort = None,
    aggregator: Annotated[str | None, typer.Option(help="fuse, vote, weighted_vote, judge or first, instead of the strategy's.")] = None,
    seed: Seed = None,
    system: Annotated[str | None, typer.Option(help="A system message before the question.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Then tell why: skills, experts, calls, times.")] = False,
    stream: Annotated[
        bool | None, typer.Option("--stream/--no-stream", show_default="stream on a terminal", help="Print the answer as it comes.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask a question; the experts that are best at it answer."""
    chosen = {
        "k": k,
        "router": router,
        "aggregator": aggregator,
        "seed": seed,
        "price_weight": price_weight,
        "load_weight": load_weight,
        "effort": effort,
    }
    options = {**chosen, **_routing(router_options, allow, deny, boost)}
    body = _body(question, model, strategy, options, system)
    headers = {"x-consilium-explain": "1"} if explain else {}
    streaming = (sys.stdout.isatty() if stream is None else stream) and not as_json
    async with server.connect(needs=EVERYTHING) as client:
        if streaming:
            async with client.events("/v1/chat/completions", {**body, "stream": True}, headers) as events:
                explanation = await _print_stream(events)
        else:
            answer = await client.call("POST", "/v1/chat/completions", body=body, headers=headers)
            if as_json:
                print_json(answer)
                return
            explanation, message = answer.get("consilium"), answer["choices"][0]["message"]
            print(message.get("content") or "")
            _note_if_silent(message.get("content"), message.get("reasoning_content"))
    if explain and explanation:
        print()
        show_explanation(explanation)


@connected
async def route(
    server: Server,
    *,
    question: Question,
    model: Model = None,
    strategy: StrategyName = None,
    k: NumExperts = None,
    router: RouterName = None,
    router_options: RouterOptions = None,
    allow: Allow = None,
    deny: Deny = None,
    boost: Boost = None,
    price_weight: PriceWeight = None,
    load_weight: LoadWeight = None,
    effort: Effort = None,
    seed: Seed = None,
    as_json: JsonFlag = False,
) -> None:
    """Show which experts would answer, and why, without asking them."""
    chosen = {"k": k, "router": router, "seed": seed, "price_weight": price_weight, "load_weight": load_weight, "effort": effort}
    body = _body(question, model, strategy, {**chosen, **_routing(router_options, allow, deny, boost)}, None)
    async with server.connect(needs=EVERYTHING) as client:
        decision = await client.call("POST", "/v1/route", body=body)
    if as_json:
        print_json(decision)
    else:
        show_decision(decision)


def _routing(router_options: str | None, allow: str | None, deny: str | None, boost: list[str] | None) -> dict[str, Any]:
    """What is written as text, as values."""
    parsed = json_object(router_options, "--router-options", example='{"floor": 0.2}')
    return {"router_options": parsed, "allow": names(allow), "deny": names(deny), "boost": dict(map(_boost, boost)) if boost else None}


def _boost(text: str) -> tuple[str, float]:
    expert, equals, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not equals or not expert.strip() or not math.isfinite(value):
        raise bad_input(f"--boost {text!r} must be an expert's id and a number, such as atlas=0.1")
    return expert.strip(), value


def _body(question: str, model: str | None, strategy: str | None, options: dict[str, Any], system: str | None) -> dict[str, Any]:
    if model is not None and strategy is not None:
        raise bad_input("--model and --strategy contradict each other: give one of them")
    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise bad_input("the question is empty")
    if strategy is not None:
        model = f"consilium/{strategy.removeprefix('consilium/')}"
    messages = [{"role": "user", "content": text.strip()}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    body: dict[str, Any] = {"model": model or "auto", "messages": messages}
    if chosen := {name: value for name, value in options.items() if value is not None}:
        body["consilium"] = chosen
    return body


async def _print_stream(events: AsyncIterator[dict[str, Any]]) -> dict[str, Any] | None:
    """Print the pieces as they come, and end the line however the stream ends; the explanation, when one came."""
    explanation: dict[str, Any] | None = None
    said = thought = ""
    try:
        async for event in events:
            explanation = event.get("consilium", explanation)
            for delta in _first_choice(event):
                thought += delta.get("reasoning_content") or ""
                if piece := delta.get("content"):
                    said += piece
                    print(piece, end="", flush=True)
    finally:
        print()
    _note_if_silent(said, thought)
    return explanation


def _first_choice(event: dict[str, Any]) -> list[dict[str, Any]]:
    return [choice.get("delta", {}) for choice in event.get("choices", ()) if choice.get("index", 0) == 0]


def _note_if_silent(said: str | None, thought: str | None) -> None:
    """An empty line looks like a fault of the program: say that it is the expert's whole answer."""
    thought = (thought or "").strip()
    if not (said or "").strip():
        note(f"the expert's answer is empty{f'; it reasoned: {thought}' if thought else ''}")
