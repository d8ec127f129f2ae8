"""How often the served zoo answers right, and what choosing experts adds.

    python benchmarks/zoo_accuracy.py [--base-url URL] [--questions FILE] [--json]

Asks every question of ``zoo/test.jsonl`` over HTTP: of each expert by its id, of ``auto``, of some strategies, and of one
expert at random. Prints a table with 95 % Wilson intervals, per domain and on the questions whose wording misleads, with
the share that was routed to the right specialist, calls per answer and wall time, and says whether the targets are met.
Without ``--base-url`` it serves the zoo itself. An answer that did not come counts as wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import httpx

from benchmarks.served_zoo import ROOT, ServerFailed, served_zoo
from benchmarks.zoo_scores import Asked, Measured, Reply, accuracy, json_of, oracle_of, specialists_of, table_of, targets_of
from domain.errors import InvalidRequest
from evaluation.graders import Grader
from evaluation.labelled import messages_of, read_labelled_rows
from evaluation.report import percent

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask: a model name with Consilium's own options."""

    name: str
    model: str
    options: Mapping[str, Any] | None = None
    seeded: bool = False
    """Send the question's number as the seed, so that what is random is the same in every run."""


async def ask(client: httpx.AsyncClient, grader: Grader, way: Way, one: Asked, number: int) -> Reply:
    """One request, graded."""
    options = {**(way.options or {}), **({"seed": number} if way.seeded else {})}
    body = {"model": way.model, "messages": [dict(m) for m in messages_of(one.question)], **({"consilium": options} if options else {})}
    began = time.monotonic()
    try:
        response = await client.post("/v1/chat/completions", json=body)
    except httpx.HTTPError as error:
        return Reply(one.question.id, correct=False, error=f"{type(error).__name__}: {error}")
    latency_ms = (time.monotonic() - began) * 1000
    if response.status_code != 200:
        return Reply(one.question.id, correct=False, latency_ms=latency_ms, error=f"{response.status_code}: {response.text[:300]}")
    try:
        answer = str(response.json()["choices"][0]["message"].get("content") or "")
    except (ValueError, LookupError, TypeError, AttributeError):
        return Reply(one.question.id, correct=False, latency_ms=latency_ms, error=f"not a chat completion: {response.text[:300]}")
    experts = tuple(name.strip() for name in response.headers.get("x-consilium-experts", "").split(",") if name.strip())
    num_calls = int(response.headers.get("x-consilium-calls", 0))
    return Reply(one.question.id, await grader.grade(one.question, answer), answer, experts, num_calls, latency_ms)


async def measure(client: httpx.AsyncClient, way: Way, asked: Sequence[Asked], *, concurrency: int, is_expert: bool = False) -> Measured:
    """All questions, at most *concurrency* at once."""
    grader = Grader()
    replies: list[Reply | None] = [None] * len(asked)
    waiting = iter(enumerate(asked))

    async def lane() -> None:
        for number, one in waiting:
            replies[number] = await ask(client, grader, way, one, number)

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(lane())
    measured = Measured(way.name, tuple(reply for reply in replies if reply is not None), time.monotonic() - began, is_expert)
    first_error = next((reply.error for reply in measured.replies if reply.error), None)
    note = f", {measured.num_failed} failed, the first with {first_error}" if first_error else ""
    print(f"{way.name}: {percent(accuracy(measured, asked))} % in {measured.wall_s:.1f} s{note}", file=sys.stderr)
    return measured


async def candidates_of(client: httpx.AsyncClient) -> list[str]:
    """Ids of the experts that may answer alone."""
    response = (await client.get("/v1/models")).raise_for_status()
    about = {model["id"]: model.get("consilium", {}) for model in response.json()["data"]}
    return [name for name, info in about.items() if info.get("kind") == "expert" and "candidate" in info.get("roles", ())]


async def run(base_url: str, asked: Sequence[Asked], arguments: argparse.Namespace) -> tuple[list[Measured], list[Measured]]:
    """What the strategies and what the single experts did. Experts first: afterwards all of them are loaded and warm."""
    headers = {"authorization": f"Bearer {arguments.key}"} if arguments.key else {}
    limits = httpx.Limits(max_connections=arguments.concurrency)
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=180, limits=limits, trust_env=False) as client:
        experts = [
            await measure(client, Way(name, name), asked, concurrency=arguments.concurrency, is_expert=True)
            for name in await candidates_of(client)
        ]
        ways = [Way("auto", "auto"), *(Way(name, f"consilium/{name}") for name in arguments.strategies.split(",") if name)]
        ways.append(Way("random expert", "consilium/single", {"router": "random"}, seeded=True))
        strategies = [await measure(client, way, asked, concurrency=arguments.concurrency) for way in ways]
    return strategies, experts


def spread(rows: Sequence[T], limit: int | None) -> Sequence[T]:
    """At most *limit* rows, evenly spaced; all of them when None."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[index * len(rows) // limit] for index in range(limit)]


async def main(arguments: argparse.Namespace) -> int:
    """Measure and print; 1 when a target is missed and ``--check`` is given, 2 when nothing could be measured."""
    try:
        rows = read_labelled_rows(arguments.questions, also=("tricky",))
        asked = [Asked(question, bool(row.get("tricky"))) for question, row in spread(rows, arguments.limit)]
        if arguments.base_url:
            strategies, experts = await run(arguments.base_url, asked, arguments)
        else:
            async with served_zoo() as served:
                strategies, experts = await run(served.base_url, asked, arguments)
    except (InvalidRequest, ServerFailed, httpx.HTTPError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not experts:
        print("error: the server has no expert that may answer alone", file=sys.stderr)
        return 2
    specialists = specialists_of(experts, asked)
    targets = targets_of(strategies[0], experts, asked)
    shown = [*strategies, *sorted(experts, key=lambda measured: -accuracy(measured, asked).num_correct), oracle_of(experts)]
    if arguments.answers:
        lines = [json.dumps({"asked": m.name, **asdict(reply)}, ensure_ascii=False) for m in shown for reply in m.replies]
        arguments.answers.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    if arguments.json:
        print(json.dumps(json_of(shown, asked, specialists, targets), indent=2, ensure_ascii=False))
    else:
        print(table_of(shown, asked, specialists).plain())
        for target in targets:
            print(f"{'reached' if target.reached else 'NOT REACHED'}: {target.name} ({target.measured})")
    return 1 if arguments.check and not all(target.reached for target in targets) else 0


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy of the served zoo on its test questions, through HTTP.")
    parser.add_argument("--base-url", help="a running server, e.g. http://127.0.0.1:8080; without it the zoo is served for the run")
    parser.add_argument("--key", default=os.environ.get("CONSILIUM_KEY"), help="API key; default $CONSILIUM_KEY")
    parser.add_argument("--questions", type=Path, default=ROOT / "zoo" / "test.jsonl", help="JSONL of labelled questions")
    parser.add_argument("--strategies", default="single,panel", help="strategies to measure beside auto, separated by commas")
    parser.add_argument("--concurrency", type=int, default=16, help="requests at once (default 16)")
    parser.add_argument("--limit", type=int, help="only so many questions, spread over the file")
    parser.add_argument("--answers", type=Path, help="write every answer there, as JSONL")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--check", action="store_true", help="end with status 1 when a target is missed")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parse_arguments())))
