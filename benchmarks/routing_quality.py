"""How well queries are routed: ``python benchmarks/routing_quality.py [--num 80] [--validation 120]``.

Labelled questions are the zoo generators' validation split, queries their test split. Experts are simulated: per domain a
specialist that is right in 97 % of its own questions and 5 % of the others, and a generalist. Five tables: the right domain
and what that is worth against an oracle; both kinds of error of the similarity floor; conversations; experts that were never
measured, on their own ground and in a panel on that of others.
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
from benchmarks.routing_texts import BRIEF_FOLLOW_UPS, BRIEF_UNKNOWN, EXEMPLARS, FOLLOW_UPS, NOTHING, REACTIONS, UNKNOWN
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

    async def route(self, messages: Sequence[Message], *, k: int = 1, **options: Any) -> RoutingDecision | None:
        """The decision for the best *k*; None when the query is refused."""
        request = ChatRequest("benchmark", "auto", tuple(messages))
        rule = PickRule("top_k", k)
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
    encoder: Encoder,
    validation: Sequence[Question],
    *,
    generalist: float = 0.6,
    newcomer: ExpertCard | None = None,
    bystanders: Sequence[ExpertCard] = (),
) -> World:
    """Everybody measured on *validation* but *bystanders*; with a *newcomer* its domain has no labelled question and nobody is
    measured on it."""
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
    experts |= {card.id: card for card in bystanders}
    skills = {q.skill: "" for q in known}
    labelled = [LabelledQuestion(str(i), q.text, q.answer, q.domain, (q.skill,)) for i, q in enumerate(known)]
    snapshot = RegistrySnapshot(1, 1, experts, {}, skills, profiles, {})
    return World(snapshot, await router_for(encoder, snapshot, labelled), generalist)


async def accuracy(console: Console, encoder: Encoder, validation: Sequence[Question], tests: Sequence[Question]) -> None:
    table = Table("generalist", "scoring", "right domain", "  misleading", "refused", "of the oracle", title=f"{len(tests)} test questions")
    for generalist in (0.55, 0.7, 0.8):
        world = await world_of(encoder, validation, generalist=generalist)
        ways: dict[str, dict[str, Any]] = {
            "shrunk, global_weight 0": {"global_weight": 0.0},
            "shrunk, 0.01 (default)": {},
            "shrunk, 0.1": {"global_weight": 0.1},
            "shrunk, 2 (the paper's)": {"global_weight": 2.0},
            "symbolic": {"scoring": "symbolic"},
        }
        for label, options in ways.items():
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
    known, unknown = list[float](), list[float]()
    for messages, into in [(messages_of(q), known) for q in tests] + [([{"role": "user", "content": t}], unknown) for t in UNKNOWN]:
        decision = await world.route(messages, floor=-1.0)
        assert decision is not None
        into.append(decision.detail["similarity"])
    table = Table("floor", "belongs, refused", "belongs nowhere, let in", title=f"The floor: {len(known)} and {len(unknown)} queries")
    for floor in (0.25, 0.3, 0.33, 0.35, 0.375, 0.4, 0.45):
        refused, let_in = sum(s < floor for s in known) / len(known), sum(s >= floor for s in unknown) / len(unknown)
        table.add_row(f"{floor:g}{' (default)' if floor == SkillsOptions().floor else ''}", f"{refused:.3f}", f"{let_in:.3f}")
    console.print(table)


Case = tuple[Sequence[Question | str], str | None]
"""The user's turns, and the domain of the last one; None when it is to be refused."""


def conversation_cases(tests: Sequence[Question], rng: Random) -> dict[str, list[Case]]:
    """What people do in a conversation, with random questions of the test split around texts by hand."""
    openings = [q for q in tests if not q.history]
    own = {domain: [q for q in openings if q.domain == domain] for domain in FOLLOW_UPS}
    short = [q for q in openings if len(q.text.split()) <= 5]

    def other(domain: str) -> Question:
        return rng.choice([q for q in openings if q.domain != domain])

    follow_ups = [(domain, text) for domain, texts in FOLLOW_UPS.items() for text in texts]
    brief = [(domain, text) for domain, texts in BRIEF_FOLLOW_UPS.items() for text in texts]
    after_short = [(q, text) for q in short for text in rng.sample(FOLLOW_UPS[q.domain], 2)]
    changes = [(first, rng.choice(openings)) for first in rng.sample(openings, 400)]
    leaves = [(first, second) for first, second in changes if first.domain != second.domain][:300]
    long_unknown = [text for text in UNKNOWN if text not in NOTHING and len(text.split()) > 3]
    brief_unknown = [*BRIEF_UNKNOWN, *(text for text in UNKNOWN if text not in NOTHING and len(text.split()) <= 3)]
    return {
        "follow-up stays": [((q, text), domain) for domain, text in follow_ups for q in rng.sample(own[domain], 4)],
        "follow-up of 3 words, no opener": [((q, text), domain) for domain, text in brief for q in rng.sample(own[domain], 4)],
        "reaction of 3 words": [((q, text), q.domain) for text in REACTIONS for q in rng.sample(openings, 4)],
        "short question, follow-up": [((q, text), q.domain) for q, text in after_short],
        "old topic, short question, follow-up": [((other(q.domain), q, text), q.domain) for q, text in after_short],
        "old topic, question, 2 follow-ups": [
            ((other(domain), q, rng.choice(FOLLOW_UPS[domain]), text), domain)
            for domain, text in follow_ups
            for q in rng.sample(own[domain], 2)
        ],
        "new topic leaves": [((first, second), second.domain) for first, second in leaves],
        "new topic in 5 words leaves": [((other(q.domain), q), q.domain) for q in short],
        "unknown is refused": [((q, text), None) for text in long_unknown for q in rng.sample(openings, 3)],
        "unknown in 3 words is refused": [((q, text), None) for text in brief_unknown for q in rng.sample(openings, 3)],
        "no topic (???, xyzzy) is refused": [((q, text), None) for text in sorted(NOTHING) for q in rng.sample(openings, 3)],
    }


def conversation(turns: Sequence[Question | str]) -> list[Message]:
    messages: list[Message] = []
    for turn in turns:
        of_turn = [{"role": "user", "content": turn}] if isinstance(turn, str) else messages_of(turn)
        messages += [*of_turn, {"role": "assistant", "content": "ok" if isinstance(turn, str) else turn.answer}]
    return messages[:-1]


async def conversations(console: Console, encoder: Encoder, validation: Sequence[Question], tests: Sequence[Question]) -> None:
    world = await world_of(encoder, validation)
    table = Table("the user's last turn", "cases", "right", "refused", title="Conversations")
    for label, cases in conversation_cases(tests, Random(3)).items():
        right = refused = 0
        for turns, domain in cases:
            decision = await world.route(conversation(turns))
            refused += decision is None
            right += decision is None if domain is None else decision is not None and decision.selected[0] == domain
        table.add_row(label, str(len(cases)), f"{right / len(cases):.3f}", f"{refused / len(cases):.3f}")
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


async def panels(console: Console, encoder: Encoder, validation: Sequence[Question], tests: Sequence[Question]) -> None:
    title = "Experts that were never measured, on ground that they do not declare: a panel of three, generalist right in 10 %"
    table = Table("newcomers", "queries", "right expert first", "seats taken by them", title=title)
    poet = ExpertCard("poet", Backend.EMBEDDED, "poet", skills=("poetry", "essays"))
    discovered = [ExpertCard(f"model-{number}", Backend.EMBEDDED, "model") for number in range(13)]
    for label, cards in {"none": [], "a poet with two skills": [poet], "13 without skills": discovered}.items():
        world = await world_of(encoder, validation, generalist=0.1, bystanders=cards)
        decisions = [(q, await world.route(messages_of(q), k=3)) for q in tests]
        made = [(q, decision.selected) for q, decision in decisions if decision is not None]
        first = sum(selected[0] == q.domain for q, selected in made) / len(made)
        seats = [expert for _, selected in made for expert in selected]
        taken = sum(expert in {card.id for card in cards} for expert in seats) / len(seats)
        table.add_row(label, str(len(made)), f"{first:.3f}", f"{taken:.3f}")
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
        for table in (accuracy, floors, conversations, newcomers, panels):
            await table(console, encoder, validation, tests)
        await encoder.close()


if __name__ == "__main__":
    asyncio.run(main())
