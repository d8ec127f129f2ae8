"""How fast pages of the admin UI answer on a full database: ``python benchmarks/pages.py [--experts N] [--skills N] [--traces N]
[--database sqlite|postgresql|both] [--postgres URL] [--rounds N] [--check]``.

Seeds a database with experts, skills, labelled questions, what was measured, traces of 30 days and an audit log, starts the service on it
in this process, logs in, and asks for each page in turn, round after round. What is timed is the service's whole time for a page: session,
database, template; nothing travels over a network. A PostgreSQL is started for it unless a URL names one whose database is empty.
Where others use the machine as well, the processor time says more
(a PostgreSQL's own is not in it). ``--check`` ends with status 1 when a page's 95th percentile is above 200 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the project is not installed

import httpx
import sqlalchemy as sa
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from api.app import create_app
from api.settings import Settings
from benchmarks.figures import quantile
from benchmarks.postgres_server import postgres_server
from domain.chat import Usage
from domain.experts import Backend, ExpertCard, Price
from domain.plan import CallRole
from domain.routing import RoutingDecision, ScoredExpert
from domain.skills import LabelledQuestion, SkillMatch
from domain.trace import CallRecord, Timings, Trace
from experts_registry import trace_rows, traffic
from experts_registry.database import Database, JsonText
from experts_registry.stores import Stores
from experts_registry.tables import (
    audit_log,
    profile_counts,
    profile_outcomes,
    profile_runs,
    registry_state,
    skills,
    trace_experts,
    traces,
)

ADMIN_KEY = "a-key-for-the-benchmark"
TARGET_MS = 200.0
DAYS = 30
CHUNK = 2000
QUESTIONS_A_SKILL = 3
ANSWERS_AN_EXPERT = 300
NUM_AUDIT = 20_000
READY_WITHIN_S, LOOK_EVERY_S = 900.0, 0.2
EXPERT, SKILL = "expert-0007", "skill 0007"


def expert_id(number: int) -> str:
    return f"expert-{number:04d}"


def skill_name(number: int) -> str:
    return f"skill {number:04d}"


async def seed(database: Database, *, num_experts: int, num_skills: int, num_traces: int, note: Console) -> None:
    """Fill an empty database, the same every time but for the present moment."""
    await database.upgrade()
    stores, rng = Stores.of(database), random.Random(7)
    async with database.session() as connection:
        await connection.execute(skills.insert(), [{"name": skill_name(n), "description": ""} for n in range(num_skills)])
    cards = [
        ExpertCard(
            expert_id(n),
            Backend.OPENAI,
            f"org/model-{n}",
            description=f"model {n} served somewhere",
            base_url="http://127.0.0.1:9/v1",
            skills=tuple(skill_name((n * 7 + i) % num_skills) for i in range(5)),
            price=Price(1.0, 2.0),
        )
        for n in range(num_experts)
    ]
    await stores.experts.declare_all(cards)
    questions = [
        LabelledQuestion(f"q-{n:04d}-{i}", f"What is {i} of skill {n}?", str(i), category="all", skills=(skill_name(n),))
        for n in range(num_skills)
        for i in range(QUESTIONS_A_SKILL)
    ]
    await stores.questions.add(questions, source="benchmark")
    await _seed_outcomes(database, rng, questions, num_experts=num_experts)
    note.print(f"  {num_experts:,} experts, {num_skills:,} skills, {len(questions):,} questions, what was measured")
    await _seed_audit(database)
    await _seed_traces(database, rng, num_experts=num_experts, num_skills=num_skills, num_traces=num_traces, note=note)


async def _seed_outcomes(database: Database, rng: random.Random, questions: Sequence[LabelledQuestion], *, num_experts: int) -> None:
    run = "run-benchmark"
    async with database.session() as connection:
        row = {"id": run, "state": "finished", "created_at": time.time(), "finished_at": time.time(), "note": "seeded"}
        await connection.execute(profile_runs.insert(), {**row, "expert_ids": [], "question_ids": []})
        for number in range(num_experts):
            counts: dict[str, list[int]] = {"": [0, 0]}
            rows = []
            for question in rng.sample(questions, min(ANSWERS_AN_EXPERT, len(questions))):
                correct = rng.random() < 0.3 + 0.6 * ((number * 31 + hash_of(question.id)) % 100) / 100
                for name in ("", question.skills[0]):
                    counted = counts.setdefault(name, [0, 0])
                    counted[0] += 1
                    counted[1] += correct
                rows.append(
                    {
                        "run_id": run,
                        "expert_id": expert_id(number),
                        "question_id": question.id,
                        "recorded": 1,
                        "counts": True,
                        "category": "all",
                        "skills": list(question.skills),
                        "correct": correct,
                        "answer": "some answer",
                        "latency_ms": 100.0,
                        "error": None,
                    }
                )
            await connection.execute(profile_outcomes.insert(), rows)
            await connection.execute(
                profile_counts.insert(),
                [
                    {"expert_id": expert_id(number), "skill": name, "num_answered": told[0], "num_correct": told[1]}
                    for name, told in counts.items()
                ],
            )
        await connection.execute(registry_state.update().values(version=registry_state.c.version + 1))


def hash_of(text: str) -> int:
    """The same in every process."""
    return sum(ord(letter) * (place + 1) for place, letter in enumerate(text))


async def _seed_audit(database: Database) -> None:
    now = time.time()
    rows = [
        {
            "id": f"entry-{n:06d}",
            "at": now - n * 60,
            "actor": "admin",
            "role": "owner",
            "method": "PATCH",
            "path": f"/admin/api/experts/{expert_id(n % 1000)}",
            "target": f"/admin/api/experts/{expert_id(n % 1000)}",
            "status": 200,
            "request_id": f"r-{n}",
            "before": {"id": expert_id(n % 1000), "enabled": True},
            "after": {"id": expert_id(n % 1000), "enabled": False},
        }
        for n in range(NUM_AUDIT)
    ]
    async with database.session() as connection:
        for start in range(0, len(rows), CHUNK):
            await connection.execute(audit_log.insert(), rows[start : start + CHUNK])


async def _seed_traces(
    database: Database, rng: random.Random, *, num_experts: int, num_skills: int, num_traces: int, note: Console
) -> None:
    templates = [_template(rng, num_experts, num_skills) for _ in range(200)]
    indexes = sorted(traces.indexes | trace_experts.indexes, key=lambda index: str(index.name))
    async with database.session() as connection:  # made when everything is there: a third of the time
        for index in indexes:
            await connection.run_sync(index.drop)
    now, began = time.time(), time.perf_counter()
    for start in range(0, num_traces, CHUNK):
        rows, called, counted = [], [], []
        for number in range(start, min(start + CHUNK, num_traces)):
            row, experts = rng.choice(templates)
            at = now - DAYS * 86_400 * (1 - number / num_traces)
            trace_id = f"{number:032x}"
            rows.append({**row, "id": trace_id, "request_id": f"r-{number}", "started_at": at, "minute": trace_rows.minute_of(at)})
            counted.append((rows[-1], experts))
            called += [{"trace_id": trace_id, "started_at": at, "minute": trace_rows.minute_of(at), **told} for told in experts]
        async with database.session() as connection:
            await connection.execute(traces.insert(), rows)
            await connection.execute(trace_experts.insert(), called)
            await connection.run_sync(traffic.add, counted)
        if start and start % 100_000 == 0:
            note.print(f"  {start:,} traces after {time.perf_counter() - began:.0f} s")
    async with database.session() as connection:
        for index in indexes:
            await connection.run_sync(index.create)
    async with database.session() as connection:
        await connection.execute(sa.text("ANALYZE"))


def _template(rng: random.Random, num_experts: int, num_skills: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A trace's columns, to be given an id and a moment."""
    chosen = [expert_id(int(num_experts * rng.random() ** 3)) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    others = [expert_id(rng.randrange(num_experts)) for _ in range(6)]
    status = rng.choices(("ok", "error", "cancelled"), (95, 4, 1))[0]
    calls = tuple(
        CallRecord(
            name, CallRole.CANDIDATE, status, rng.uniform(50, 900), Usage(rng.randrange(20, 900), rng.randrange(5, 400)), text="words"
        )
        for name in dict.fromkeys(chosen)
    )
    trace = Trace(
        request_id="r",
        model="auto",
        strategy=rng.choice(("auto", "panel", "cheap")),
        started_at=0.0,
        status=status,
        decision=RoutingDecision(
            "skills",
            tuple(chosen),
            tuple(ScoredExpert(name, rng.random(), name in chosen, "measured on 40 questions") for name in [*chosen, *others]),
            "the best measured",
            (SkillMatch(skill_name(rng.randrange(num_skills)), 0.8, 1.0),),
        ),
        calls=calls,
        aggregator="single",
        timings=Timings(3.0, 400.0, 0.0, rng.lognormvariate(6, 0.6), 4.0),
        usage=Usage(300, 100),
        error_code="all_experts_failed" if status == "error" else None,
        messages=({"role": "user", "content": "a question of some length " * 4},),
        answer="an answer",
        id="t",
    )
    row = trace_rows.to_row(trace)
    judged = rng.choices((None, "good", "bad"), (95, 3, 2))[0]
    return {**row, "document": JsonText(str(row["document"])), "judged": judged}, trace_rows.calls_of(trace)


PAGES = (
    "/admin?window=1h",
    "/admin?window=24h",
    "/admin?window=7d",
    "/admin/experts",
    "/admin/experts?q=model+77&state=healthy",
    "/admin/experts?skill=skill+0007&after=expert-0500",
    f"/admin/experts/{EXPERT}",
    f"/admin/experts/{EXPERT}/edit",
    "/admin/skills",
    f"/admin/skills?sort={SKILL.replace(' ', '+')}&row=400&col=120",
    f"/admin/skills/questions?expert={EXPERT}&skill={SKILL.replace(' ', '+')}",
    "/admin/skills/runs",
    "/admin/playground",
    "/admin/requests",
    "/admin/requests?status=error",
    "/admin/requests?strategy=panel&within=24h",
    f"/admin/requests?expert={EXPERT}",
    "/admin/requests?expert=expert-0000&status=error",
    "/admin/requests?error=all_experts_failed",
    "/admin/requests?judged=bad",
    "/admin/requests?q=r-500000",
    "next page of /admin/requests",
    "one request",
    "/admin/batches",
    "/admin/workers",
    "/admin/evaluation",
    "/admin/strategies",
    "/admin/keys",
    "/admin/audit",
)


@dataclass(frozen=True, slots=True)
class Timed:
    """One page: milliseconds of each round, also of this process's processor, and its size."""

    page: str
    times: list[float]
    processor: list[float]
    num_bytes: int

    @property
    def p95(self) -> float:
        return quantile(self.times, 0.95)


async def measure(settings: Settings, *, rounds: int, note: Console) -> list[Timed]:
    """Every page."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        for _ in range(int(READY_WITHIN_S / LOOK_EVERY_S)):
            if app.state.services.readiness.is_ready:
                break
            await asyncio.sleep(LOOK_EVERY_S)
        note.print("  the service is ready")
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", follow_redirects=True, timeout=60) as client:
            form = (await client.get("/admin/login")).text
            token = _found(r'csrf_token" value="([^"]+)', form)
            await client.post("/admin/login", data={"key": ADMIN_KEY, "csrf_token": token, "next": "/admin"})
            listed = (await client.get("/admin/requests")).text
            named = {
                "next page of /admin/requests": _found(r'rel="next" href="([^"]+)"', await _deep(client, 5)) or "/admin/requests",
                "one request": _found(r'href="(/admin/requests/[0-9a-f]{32})"', listed),
            }
            found: dict[str, list[float]] = {page: [] for page in PAGES}
            processor: dict[str, list[float]] = {page: [] for page in PAGES}
            sizes: dict[str, int] = {}
            for number in range(rounds + 1):
                for page in PAGES:
                    began, worked = time.perf_counter(), time.process_time()
                    response = await client.get(named.get(page, page).replace("&amp;", "&"))
                    took = (time.perf_counter() - began) * 1e3
                    if response.status_code != 200:
                        raise SystemExit(f"{page} answered {response.status_code}: {response.text[:500]}")
                    if number:  # the first round warms up
                        found[page].append(took)
                        processor[page].append((time.process_time() - worked) * 1e3)
                    sizes[page] = len(response.content)
    return [Timed(page, found[page], processor[page], sizes[page]) for page in PAGES]


async def _deep(client: httpx.AsyncClient, num_pages: int) -> str:
    """The list of requests, some pages on."""
    text = (await client.get("/admin/requests")).text
    for _ in range(num_pages):
        text = (await client.get(_found(r'rel="next" href="([^"]+)"', text).replace("&amp;", "&"))).text
    return text


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""


def run(name: str, url: str | None, folder: Path, asked: argparse.Namespace, console: Console) -> bool:
    """Seed and measure one database; prints its table. Whether every page was quick enough."""
    key = SecretStr(ADMIN_KEY)
    settings = Settings(_env_file=None, data_dir=folder, admin_key=key, seed_zoo=False, log_level="warning", database_url=url)
    console.print(f"{name}: seeding")
    began = time.perf_counter()

    async def seeded() -> None:
        database = Database.connect(settings.database)
        try:
            await seed(database, num_experts=asked.experts, num_skills=asked.skills, num_traces=asked.traces, note=console)
        finally:
            await database.close()

    asyncio.run(seeded())
    console.print(f"  seeded in {time.perf_counter() - began:.0f} s")
    rows = asyncio.run(measure(settings, rounds=asked.rounds, note=console))
    table = Table(title=f"{name}: {asked.experts:,} experts, {asked.skills:,} skills, {asked.traces:,} traces", title_justify="left")
    for column in ("page", "p50 ms", "p95 ms", "processor ms", "kB"):
        table.add_column(column, justify="left" if column == "page" else "right")
    for row in rows:
        figures = (quantile(row.times, 0.5), row.p95, quantile(row.processor, 0.5), row.num_bytes / 1000)
        table.add_row(row.page, *(f"{figure:.0f}" for figure in figures))
    console.print(table)
    slow = [row.page for row in rows if row.p95 > TARGET_MS]
    console.print(
        f"reached: every page within {TARGET_MS:.0f} ms (p95)" if not slow else f"MISSED: {json.dumps(slow)} above {TARGET_MS:.0f} ms"
    )
    return not slow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, default=1000)
    parser.add_argument("--skills", type=int, default=300)
    parser.add_argument("--traces", type=int, default=1_000_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--postgres", help="the URL of an empty database; without it a server is started")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    console, reached = Console(width=130), True
    if asked.database != "postgresql":
        with tempfile.TemporaryDirectory(prefix="consilium-pages-") as folder:
            reached &= run("SQLite", None, Path(folder), asked, console)
    if asked.database != "sqlite":
        with tempfile.TemporaryDirectory(prefix="consilium-pages-") as folder, postgres_server(asked.postgres) as url:
            reached &= run("PostgreSQL", url, Path(folder), asked, console)
    if asked.check and not reached:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
