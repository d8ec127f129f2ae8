"""How well queries are routed: ``python benchmarks/routing_quality.py [--num 80] [--validation 120]``.

Labelled questions are the zoo generators' validation split, queries their test split. Experts are simulated: per domain a
specialist that is right in 97 % of its own questions and 5 % of the others, and a generalist. Four tables: the right domain
and what that is worth against an oracle; both kinds of error of the similarity floor; conversations; an expert that was
never measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from benchmarks.routing import router_for
from benchmarks.routing_texts import EXEMPLARS, FOLLOW_UPS, UNKNOWN
from domain.chat import ChatRequest, Message
from domain.errors import NoEligibleExpert
from domain.experts import Backend, ExpertCard
from domain.registry import RegistrySnapshot
from domain.routing import PickRule, RoutingDecision, RoutingQuery
from domain.skills import LabelledQuestion, SkillCount, SkillProfile
from routers.encoder import DEFAULT_MODEL, Encoder
from routers.options import SkillsOptions
from routers.skills_router import SkillsRouter
from zoo.questions import GENERATORS
from zoo.questions.base import Question, Split

OWN, OTHER = 0.97, 0.05


def questions_of(split: Split, num: int, *, tricky: float, seed: int) -> list[Question]:
    """*num* different questions a domain, that share of them misleading."""
    rng, questions = Random(seed), dict[str, Question]()
    for generate in GENERATORS.values():
        for number in range(num):
            question = generate(rng, split, tricky=number < num * tricky)
            questions.setdefault(question.text, question)
    return list(questions.values())


def messages_of(question: Question) -> list[Message]:
    turns: list[Message] = []
    for said, answered in question.history:
        turns += [{"role": "user", "content": said}, {"role": "assistant", "content": answered}]
    return [*turns, {"role": "user", "content": question.text}]


@dataclass(frozen=True, slots=True)
class World:
    """A registry of simulated experts, and the router over it."""

    snapshot: RegistrySnapshot
    router: SkillsRouter
    generalist: float

    async def route(self, messages: Sequence[Message], **options: Any) -> RoutingDecision | None:
        """The decision; None when the query is refused."""
        request = ChatRequest("benchmark", "auto", tuple(messages))
        rule = PickRule("top_k", 1)
        try:
            return await self.router.route(
                RoutingQuery(request, list(self.snapshot.experts.values()), rule, 0, options=options), self.snapshot
            )
        except NoEligibleExpert:
            return None

    def accuracy(self, decision: RoutingDecision | None, domain: str) -> float:
        """How often the selected expert answers a question of *domain* right."""
        if decision is None:
            return 0.0
        selected = decision.selected[0]
        return OWN if selected == domain else self.generalist if selected == "generalist" else OTHER


async def world_of(
    encoder: Encoder, validation: Sequence[Question], *, generalist: float = 0.6, newcomer: ExpertCard | None = None
) -> World:
    """Everybody measured on *validation*; with a *newcomer* its domain has no labelled question and nobody is measured on it."""
    known = [q for q in validation if newcomer is None or q.domain != newcomer.id]
    rng, experts, profiles = Random(0), dict[str, ExpertCard](), dict[str, SkillProfile]()
    for name in (*GENERATORS, "generalist"):
        experts[name] = ExpertCard(name, Backend.EMBEDDED, name)
        counts: dict[str, SkillCount] = {}
        for q in known:
            right = rng.random() < (generalist if name == "generalist" else OWN if q.domain == name else OTHER)
            counts[q.skill] = counts.get(q.skill, SkillCount()) + SkillCount(1, int(right))
        profiles[name] = SkillProfile(name, counts, sum(counts.values(), SkillCount()))
    if newcomer is not None:
        experts[newcomer.id] = newcomer
        del profiles[newcomer.id]
    skills = {q.skill: "" for q in known}
    labelled = [LabelledQuestion(str(i), q.text, q.answer, q.domain, (q.skill,)) for i, q in enumerate(known)]
    snapshot = RegistrySnapshot(1, 1, experts, {}, skills, profiles, {})
    return World(snapshot, await router_for(encoder, snapshot, labelled), generalist)


async def accuracy(console: Console, encoder: Encoder, validation: Sequence[Question], tests: Sequence[Question]) -> None:
    table = Table("generalist", "scoring", "right domain", "  misleading", "refused", "of the oracle", title=f"{len(tests)} test questions")
    for generalist in (0.55, 0.7, 0.8):
        world = await world_of(encoder, validation, generalist=generalist)
        for label, options in {
            "shrunk, global_weight 0": {"global_weight": 0.0},
            "shrunk, 0.01 (default)": {},
            "shrunk, 0.1": {"global_weight": 0.1},
            "shrunk, 2 (the paper's)": {"global_weight": 2.0},
            "symbolic": {"scoring": "symbolic"},
        }.items():
            decisions = [await world.route(messages_of(q), **options) for q in tests]
            right = [d is not None and d.selected[0] == q.domain for d, q in zip(decisions, tests, strict=True)]
            tricky = [ok for ok, q in zip(right, tests, strict=True) if q.tricky]
            reached = sum(world.accuracy(d, q.domain) for d, q in zip(decisions, tests, strict=True)) / (OWN * len(tests))
            refused = sum(d is None for d in decisions) / len(tests)
            row = (f"{sum(values) / len(values):.3f}" for values in (right, tricky))
            table.add_row(f"{generalist:.2f}", label, *row, f"{refused:.3f}", f"{reached:.3f}")
    console.print(table)


async def floors(console: Console, encoder: Encoder, validation: Sequence[Question], tests: Sequence[Question]) -> None:
    world = await world_of(encoder, validation)
    known, unknown = [], []
    for messages, into in [(messages_of(q), known) for q in tests] + [([{"role": "user", "content": t}], unknown) for t in UNKNOWN]:
        decision = await world.route(messages, floor=-1.0)
        assert decision is not None
        into.append(decision.detail["similarity"])
    table = Table("floor", "belongs, refused", "belongs nowhere, let in", title=f"The floor: {len(known)} and {len(unknown)} queries")
    for floor in (0.25, 0.3, 0.33, 0.35, 0.375, 0.4, 0.45):
        refused, let_in = sum(s < floor for s in known) / len(known), sum(s >= floor for s in unknown) / len(unknown)
        table.add_row(f"{floor:g}{' (default)' if floor == SkillsOptions().floor else ''}", f"{refused:.3f}", f"{let_in:.3f}")
    console.print(table)


async def conversations(console: Console, encoder: Encoder, validation: Sequence[Question], tests: Sequence[Question]) -> None:
    world, rng = await world_of(encoder, validation), Random(3)
    openings = [q for q in tests if not q.history]
    cases: dict[str, list[tuple[Question, str, str | None]]] = {"follow-up stays": [], "new topic leaves": [], "unknown is refused": []}
    for domain, follow_ups in FOLLOW_UPS.items():
        own = [q for q in openings if q.domain == domain]
        cases["follow-up stays"] += [(q, text, domain) for text in follow_ups for q in rng.sample(own, 4)]
    while len(cases["new topic leaves"]) < 300:
        first, second = rng.sample(openings, 2)
        if first.domain != second.domain:
            cases["new topic leaves"].append((first, second.text, second.domain))
    cases["unknown is refused"] = [(rng.choice(openings), text, None) for text in UNKNOWN]
    table = Table("second turn", "cases", "right", "refused", title="Conversations")
    for label, turns in cases.items():
        right = refused = 0
        for first, text, domain in turns:
            history = [*messages_of(first), {"role": "assistant", "content": first.answer}, {"role": "user", "content": text}]
            decision = await world.route(history)
            refused += decision is None
            right += decision is None if domain is None else decision is not None and decision.selected[0] == domain
        table.add_row(label, str(len(turns)), f"{right / len(turns):.3f}", f"{refused / len(turns):.3f}")
    console.print(table)


async def newcomers(console: Console, encoder: Encoder, validation: Sequence[Question], tests: Sequence[Question]) -> None:
    title = "An expert that was never measured, on ground without labelled questions: skills and three exemplars declared"
    table = Table("its domain", "its queries: to it", "refused", "others: right", "taken by it", title=title)
    for domain in GENERATORS:
        skills = tuple(sorted({q.skill for q in validation if q.domain == domain}))
        newcomer = ExpertCard(domain, Backend.EMBEDDED, domain, skills=skills, exemplars=EXEMPLARS[domain])
        world = await world_of(encoder, validation, newcomer=newcomer)
        own, others = [q for q in tests if q.domain == domain], [q for q in tests if q.domain != domain]
        on_own, on_others = [[await world.route(messages_of(q)) for q in group] for group in (own, others)]
        table.add_row(
            domain,
            f"{sum(d is not None and d.selected[0] == domain for d in on_own) / len(own):.2f}",
            f"{sum(d is None for d in on_own) / len(own):.2f}",
            f"{sum(d is not None and d.selected[0] == q.domain for d, q in zip(on_others, others, strict=True)) / len(others):.3f}",
            f"{sum(d is not None and d.selected[0] == domain for d in on_others) / len(others):.3f}",
        )
    console.print(table)


async def main() -> None:
    parser = argparse.ArgumentParser(description="How well queries are routed.")
    parser.add_argument("--num", type=int, default=80, help="test questions a domain")
    parser.add_argument("--validation", type=int, default=120, help="labelled questions a domain")
    arguments = parser.parse_args()
    console = Console(width=120)
    validation = questions_of("validation", arguments.validation, tricky=0.25, seed=1)
    tests = questions_of("test", arguments.num, tricky=0.15, seed=2)
    with tempfile.TemporaryDirectory() as folder:
        encoder = Encoder.for_model(DEFAULT_MODEL, cache_dir=Path(folder), num_threads=os.cpu_count() or 1)
        await encoder.start()
        for table in (accuracy, floors, conversations, newcomers):
            await table(console, encoder, validation, tests)
        await encoder.close()


if __name__ == "__main__":
    asyncio.run(main())
