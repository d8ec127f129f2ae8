"""The feedback loop: an expert is swapped for a bad one while users judge every answer, and mended later.

    python benchmarks/feedback_loop.py [--expert arithmetic] [--swap-for text] [--answers 240,360,720] [--json OUT]

Serves the zoo, asks questions one after the other (half of them the expert's own ground), grades each answer and gives that to
``POST /v1/feedback``. After the first part the expert's folder holds another specialist's weights, after the second its own again; the
service is started anew on the same data, as after a deployment. Its card stays as it is: a card that names another model says itself that
what was measured counts no more. Prints accuracy per window, when the alarm came, how many answers it took until the expert was routed away
from, and how much of what was lost came back. Nothing but feedback tells the service that anything has changed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import httpx

from benchmarks.served_zoo import ROOT, ServerFailed, served_zoo
from domain.errors import InvalidRequest
from domain.skills import LabelledQuestion
from evaluation.graders import Grader
from evaluation.labelled import messages_of, read_labelled_rows
from evaluation.report import Table
from zoo.release import WEIGHTS

AWAY = 0.2
"""Share of its own questions below which the expert counts as routed away from; twice of what it is tried again on, and more."""
LOOK_BACK = 20
"""Answers of the expert's own ground that this share is over."""


@dataclass(frozen=True, slots=True)
class Step:
    """One question, answered and judged."""

    number: int
    own: bool
    """Of the ground of the expert that is swapped."""
    correct: bool
    expert: str
    drifted: bool
    """Whether the service says, after it, that the expert has got worse."""


class Loop:
    """A client that asks, grades and tells."""

    def __init__(self, client: httpx.AsyncClient, admin: httpx.AsyncClient, expert: str) -> None:
        self._client, self._admin, self._expert, self._grader = client, admin, expert, Grader()

    async def step(self, number: int, question: LabelledQuestion, *, own: bool) -> Step:
        answer, expert, request_id = await self.ask(question, {"seed": number})
        correct = await self._grader.grade(question, answer)
        if not expert:  # refused, as like nothing known: there is no answer to judge
            return Step(number, own, False, "", await self._drifted())
        (await self._client.post("/v1/feedback", json={"request_id": request_id, "correct": correct})).raise_for_status()
        return Step(number, own, correct, expert, await self._drifted())

    async def ask(self, question: LabelledQuestion, options: Mapping[str, Any]) -> tuple[str, str, str]:
        """Answer, expert, request id; empty when the question is refused."""
        body = {"model": "consilium/single", "messages": [dict(m) for m in messages_of(question)], "consilium": dict(options)}
        response = await self._client.post("/v1/chat/completions", json=body)
        if response.status_code == 503:
            return "", "", ""
        response.raise_for_status()
        text = str(response.json()["choices"][0]["message"].get("content") or "")
        return text, response.headers["x-consilium-experts"], response.headers["x-request-id"]

    async def without(self, questions: Sequence[LabelledQuestion]) -> float:
        """Accuracy on *questions* of whoever is next best: what there is to win back. Told to nobody."""
        right = [await self._grader.grade(q, (await self.ask(q, {"deny": [self._expert]}))[0]) for q in questions]
        return sum(right) / len(right)

    async def profile(self) -> dict[str, Any]:
        rows = (await self._admin.get("/admin/api/feedback-profiles", params={"limit": 1000})).raise_for_status().json()["data"]
        return next((row for row in rows if row["expert"] == self._expert), {"drifted": False, "num_alarms": 0, "accuracy": None})

    async def _drifted(self) -> bool:
        return bool((await self.profile())["drifted"])


def stream(
    own: Sequence[LabelledQuestion], others: Sequence[LabelledQuestion], num: int, rng: Random
) -> list[tuple[LabelledQuestion, bool]]:
    """*num* questions, every second one of the expert's own ground; drawn without repeats as long as there are new ones."""
    piles = {True: _endless(own, num, rng), False: _endless(others, num, rng)}
    return [(piles[number % 2 == 0].pop(), number % 2 == 0) for number in range(num)]


def _endless(questions: Sequence[LabelledQuestion], num: int, rng: Random) -> list[LabelledQuestion]:
    pile: list[LabelledQuestion] = []
    while len(pile) < num:
        pile += rng.sample(list(questions), len(questions))
    return pile


def share(steps: Sequence[Step], expert: str | None = None) -> float:
    """Of *steps* that were right, or that *expert* answered."""
    return sum(step.correct if expert is None else step.expert == expert for step in steps) / len(steps) if steps else float("nan")


def windows(steps: Sequence[Step], size: int, expert: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for start in range(0, len(steps), size):
        part = steps[start : start + size]
        own = [step for step in part if step.own]
        alarm = next((f"{step.number}" for step in part if step.drifted), "")
        rows.append(
            (
                f"{part[0].number}-{part[-1].number}", f"{100 * share(part):.0f}", f"{100 * share(own):.0f}",
                f"{100 * share(own, expert):.0f}", f"worse, from {alarm}" if alarm else "",
            )
        )  # fmt: skip
    return rows


def until_away(steps: Sequence[Step], expert: str) -> int | None:
    """Answers until *expert* gets fewer than ``AWAY`` of the questions on its own ground; None: it never does."""
    for number in range(len(steps)):
        own = [step for step in steps[number:] if step.own][:LOOK_BACK]
        if len(own) == LOOK_BACK and share(own, expert) < AWAY:
            return number
    return None


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    expert, rng = arguments.expert, Random(arguments.seed)
    questions = [question for question, _ in read_labelled_rows(arguments.questions, also=("tricky",))]
    own = [question for question in questions if question.category == expert]
    others = [question for question in questions if question.category != expert]
    if not own:
        raise InvalidRequest(f"{arguments.questions} has no questions of the category {expert!r}")
    parts, number, reachable, profile = list[list[Step]](), 0, 0.0, dict[str, Any]()
    with tempfile.TemporaryDirectory(prefix="consilium-feedback-") as folder:
        data, weights = Path(folder) / "data", Path(folder) / "weights"
        shutil.copytree(WEIGHTS, weights)
        for length, model in zip(arguments.answers, (expert, arguments.swap_for, expert), strict=True):
            shutil.rmtree(weights / expert)
            shutil.copytree(WEIGHTS / model, weights / expert)
            async with looped(data, weights, expert) as loop:
                reachable = reachable or await loop.without(own)
                steps = []
                for question, is_own in stream(own, others, length, rng):
                    steps.append(await loop.step(number, question, own=is_own))
                    number += 1
                parts.append(steps)
                profile = await loop.profile()
            print(f"part {len(parts)} of 3: {100 * share(steps):.1f} % right", file=sys.stderr)
    return {"parts": parts, "reachable": reachable, "profile": profile}


@asynccontextmanager
async def looped(data: Path, weights: Path, expert: str) -> AsyncIterator[Loop]:
    """A client of a service on *data* whose experts have *weights*."""
    async with served_zoo(data, variables={"CONSILIUM_EMBEDDED_DIR": str(weights)}) as served:
        key = (data / "admin.key").read_text().strip()
        admin = httpx.AsyncClient(base_url=served.base_url, headers={"authorization": f"Bearer {key}"}, timeout=60, trust_env=False)
        async with admin, httpx.AsyncClient(base_url=served.base_url, timeout=60, trust_env=False) as client:
            yield Loop(client, admin, expert)


def report(found: Mapping[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures, and the table printed."""
    expert, (before, bad, mended) = arguments.expert, found["parts"]
    usual = share([step for step in before if step.own])
    away = until_away(bad, expert)
    settled = [step for step in bad[away or 0 :] if step.own]
    broken = [step for step in bad[: away or len(bad)] if step.own and step.expert == expert]
    back = next((step.number - mended[0].number for step in mended if not step.drifted), None)
    regained = [step for step in mended[back or 0 :] if step.own]
    alarm = next((step.number - bad[0].number for step in bad if step.drifted), None)
    lost, won = found["reachable"] - share(broken), share(settled) - share(broken)
    figures = {
        "expert": expert,
        "swapped_for": arguments.swap_for,
        "accuracy_before": usual,
        "accuracy_of_the_bad_expert": share(broken),
        "accuracy_of_the_next_best": found["reachable"],
        "alarm_after_answers": alarm,
        "alarm_after_own_answers": None if alarm is None else sum(step.own for step in bad[: alarm + 1]),
        "away_after_answers": away,
        "accuracy_after": share(settled),
        "recovered_share": won / lost if lost > 0 else None,
        "noticed_mended_after_answers": back,
        "accuracy_when_mended": share(regained),
        "regained_share": share(regained) / usual if usual else None,
        "false_alarms_before": sum(step.drifted for step in before),
    }
    for title, steps in (("before", before), (f"swapped for {arguments.swap_for}", bad), ("mended", mended)):
        table = Table(
            title, ("answers", "right %", f"{expert} % right", f"asked of {expert} %", "alarm"), tuple(windows(steps, 60, expert))
        )
        print(table.plain(), end="\n\n")
    for name, value in figures.items():
        print(f"{name.replace('_', ' ')}: {value if not isinstance(value, float) else round(value, 3)}")
    return figures


def lengths(text: str) -> list[int]:
    found = [int(part) for part in text.split(",")]
    if len(found) != 3 or min(found) < 2 * LOOK_BACK:
        raise argparse.ArgumentTypeError(f"three numbers, each {2 * LOOK_BACK} or more")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="How the service recovers when an expert is swapped for a bad one.")
    parser.add_argument("--expert", default="arithmetic", help="whose weights are swapped; a category of the questions too")
    parser.add_argument("--swap-for", default="text", help="whose weights it gets")
    parser.add_argument("--answers", type=lengths, default=[240, 360, 720], help="before, swapped, mended (default 240,360,720)")
    parser.add_argument("--questions", type=Path, default=ROOT / "zoo" / "test.jsonl", help="JSONL of labelled questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write figures and every step there")
    arguments = parser.parse_args(argv)
    try:
        found = asyncio.run(run(arguments))
    except (InvalidRequest, ServerFailed, httpx.HTTPError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    figures = report(found, arguments)
    if arguments.json:
        steps = [asdict(step) for part in found["parts"] for step in part]
        arguments.json.write_text(json.dumps({"figures": figures, "steps": steps}, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
