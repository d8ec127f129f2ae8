"""What each shipped strategy is worth: accuracy, calls, tokens and seconds on single-skill and on multi-step questions.

    python benchmarks/presets.py [--base-url URL] [--limit N] [--strategies single,vote,...] [--json]

Asks ``zoo/test.jsonl`` and ``zoo/multistep.jsonl`` of every enabled strategy over HTTP, with the explain object, and prints a row for each:
the share answered right with its 95 % Wilson interval on both sets, and per answer calls, tokens of all calls, answer tokens that were
waited for one after the other, and seconds; and how many of the answers that were made of several candidates say something else than the
best-scored one. Without ``--base-url`` it serves the zoo itself. An answer that did not come counts as wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import httpx

from benchmarks.served_zoo import ROOT, ServerFailed, served_zoo
from benchmarks.zoo_accuracy import spread
from domain.errors import InvalidRequest
from domain.skills import LabelledQuestion
from evaluation.graders import Grader
from evaluation.labelled import messages_of, read_labelled_rows
from evaluation.report import Table, percent
from evaluation.summary import Accuracy

SETS = {"test": ROOT / "zoo" / "test.jsonl", "multi-step": ROOT / "zoo" / "multistep.jsonl"}
MIN_POINTS_ON_MULTISTEP = 15.0
"""What ``plan`` or ``chain`` has to be above ``single`` on the multi-step questions."""
RECOMMENDED = frozenset({"openagi", "hdflow"})
"""What has to beat majority vote on both sets together, with no more calls."""


@dataclass(frozen=True, slots=True)
class Told:
    """One answer."""

    correct: bool
    num_calls: int = 0
    num_tokens: int = 0
    num_sequential: int = 0
    seconds: float = 0.0
    error: str | None = None
    changed: bool | None = None
    """Of several candidates: whether the answer says something else than the best-scored one's."""


@dataclass(frozen=True, slots=True)
class Row:
    """One strategy on one set."""

    strategy: str
    questions: str
    accuracy: Accuracy
    calls: float
    tokens: float
    sequential: float
    seconds: float
    num_failed: int
    first_error: str | None = None
    num_panels: int = 0
    """Answers made of several candidates."""
    num_changed: int = 0
    """Those of them that say something else than the best-scored candidate."""


async def ask(client: httpx.AsyncClient, grader: Grader, strategy: str, question: LabelledQuestion, number: int) -> Told:
    """One request, graded."""
    options = {"explain": True, "seed": number}
    body = {"model": f"consilium/{strategy}", "messages": [dict(m) for m in messages_of(question)], "consilium": options}
    began = time.monotonic()
    try:
        response = await client.post("/v1/chat/completions", json=body)
        seconds = time.monotonic() - began
        told: dict[str, Any] = response.json()
        if response.status_code != 200:
            return Told(False, seconds=seconds, error=f"{response.status_code}: {response.text[:200]}")
        answer, explained = str(told["choices"][0]["message"].get("content") or ""), told["consilium"]
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        return Told(False, seconds=time.monotonic() - began, error=f"{type(error).__name__}: {error}")
    num_calls = sum(call["status"] != "skipped" for call in explained["calls"])
    right = await grader.grade(question, answer)
    changed = explained["panel_changed_answer"]
    return Told(right, num_calls, told["usage"]["total_tokens"], explained["sequential_tokens"], seconds, changed=changed)


async def measure(client: httpx.AsyncClient, strategy: str, name: str, questions: Sequence[LabelledQuestion], *, concurrency: int) -> Row:
    """All questions, at most *concurrency* at once."""
    grader, told, waiting = Grader(), list[Told](), iter(enumerate(questions))

    async def lane() -> None:
        for number, question in waiting:
            told.append(await ask(client, grader, strategy, question, number))

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(lane())
    failed = [one for one in told if one.error is not None]
    answered = [one for one in told if one.error is None] or told
    row = Row(
        strategy,
        name,
        Accuracy(len(told), sum(one.correct for one in told)),
        statistics.fmean(one.num_calls for one in answered),
        statistics.fmean(one.num_tokens for one in answered),
        statistics.fmean(one.num_sequential for one in answered),
        statistics.median(one.seconds for one in answered),
        len(failed),
        failed[0].error if failed else None,
        sum(one.changed is not None for one in told),
        sum(bool(one.changed) for one in told),
    )
    print(f"{strategy} on {name}: {percent(row.accuracy)} %, {len(failed)} failed {row.first_error or ''}", file=sys.stderr, flush=True)
    return row


async def run(base_url: str, arguments: argparse.Namespace) -> list[Row]:
    headers = {"authorization": f"Bearer {arguments.key}"} if arguments.key else {}
    sets = {
        name: spread([question for question, _ in read_labelled_rows(path, also=("tricky",))], arguments.limit)
        for name, path in SETS.items()
    }
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=300, trust_env=False) as client:
        models = (await client.get("/v1/models")).raise_for_status().json()["data"]
        known = [model["id"].removeprefix("consilium/") for model in models if model["id"].startswith("consilium/")]
        strategies = arguments.strategies.split(",") if arguments.strategies else known
        return [
            await measure(client, strategy, name, questions, concurrency=arguments.concurrency)
            for strategy in strategies
            for name, questions in sets.items()
        ]


def table_of(rows: Sequence[Row]) -> Table:
    """A row for each strategy, those that are best on both sets together first."""
    by = {(row.strategy, row.questions): row for row in rows}
    names = sorted({row.strategy for row in rows}, key=lambda name: -sum(by[name, one].accuracy.share or 0 for one in SETS))
    columns = (
        "strategy",
        *(f"{one} %" for one in SETS),
        *(f"{what}, {one}" for one in SETS for what in ("calls", "tokens", "in sequence", "s", "changed by the panel")),
    )
    cells = [
        (
            name,
            *(percent(by[name, one].accuracy, interval=True) for one in SETS),
            *(
                cell
                for one in SETS
                for row in (by[name, one],)
                for cell in (
                    f"{row.calls:.1f}",
                    f"{row.tokens:.0f}",
                    f"{row.sequential:.0f}",
                    f"{row.seconds:.2f}",
                    f"{row.num_changed} of {row.num_panels}",
                )
            ),
        )
        for name in names
    ]
    return Table("Presets", columns, tuple(cells))


def targets_of(rows: Sequence[Row]) -> list[tuple[bool, str]]:
    """Whether several steps are worth it, and the recommended presets more than majority vote; nothing of what was not measured."""
    by = {(row.strategy, row.questions): row for row in rows}
    names = {row.strategy for row in rows}
    found: list[tuple[bool, str]] = []
    share = {name: 100 * (by[name, "multi-step"].accuracy.share or 0.0) for name in names}
    if "single" in share and (steps := names & {"openagi", "chain", "hdflow"}):
        best = max(steps, key=lambda name: share[name])
        gain = share[best] - share["single"]
        found.append((gain >= MIN_POINTS_ON_MULTISTEP, f"{best} is {gain:.1f} points above single on multi-step questions"))
    for name in sorted(names & RECOMMENDED) if "vote" in names else ():
        (right, calls), (votes, vote_calls) = (_together([by[one, questions] for questions in SETS]) for one in (name, "vote"))
        told = (
            f"{name} answers {right:.1f} % of all questions with {calls:.1f} calls each, majority vote {votes:.1f} % with {vote_calls:.1f}"
        )
        found.append((right > votes and calls <= vote_calls, told))
    return found


def _together(rows: Sequence[Row]) -> tuple[float, float]:
    """Per cent answered right, and calls per answer, of all sets."""
    num = sum(row.accuracy.num_answered for row in rows)
    right = sum(row.accuracy.num_correct for row in rows)
    return 100 * right / num, sum(row.calls * row.accuracy.num_answered for row in rows) / num


async def main(arguments: argparse.Namespace) -> int:
    """Measure and print; 1 when the target is missed and ``--check`` is given, 2 when nothing could be measured."""
    try:
        if arguments.base_url:
            rows = await run(arguments.base_url, arguments)
        else:
            async with served_zoo() as served:
                rows = await run(served.base_url, arguments)
    except (InvalidRequest, ServerFailed, httpx.HTTPError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps([asdict(row) for row in rows], indent=2) if arguments.json else table_of(rows).plain())
    targets = targets_of(rows)
    for is_reached, told in targets:
        print(f"{'reached' if is_reached else 'MISSED'}: {told}", file=sys.stderr if arguments.json else sys.stdout)
    return 1 if arguments.check and not all(is_reached for is_reached, _ in targets) else 0


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy and cost of every strategy on the zoo's questions, through HTTP.")
    parser.add_argument("--base-url", help="a running server, e.g. http://127.0.0.1:8080; without it the zoo is served for the run")
    parser.add_argument("--key", help="API key")
    parser.add_argument("--strategies", default="", help="separated by commas; all that the server has when left out")
    parser.add_argument("--concurrency", type=int, default=16, help="requests at once (default 16)")
    parser.add_argument("--limit", type=int, help="only so many questions of each set, spread over the file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--check", action="store_true", help="end with status 1 when the target is missed")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parse_arguments())))
