"""Builders for routing tests: cards, profiles, labelled questions, a snapshot, a router over the hashing encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from domain.access import PUBLIC, Access
from domain.chat import ChatRequest, Message
from domain.experts import Backend, ExpertCard
from domain.registry import RegistrySnapshot
from domain.routing import PickRule, RoutingQuery
from domain.skills import LabelledQuestion, SkillCount, SkillProfile
from routers.annotators import Annotator, EmbeddingAnnotator
from routers.index_holder import IndexHolder
from routers.skills_router import SkillsRouter
from routers.stickiness import SessionMemory
from tests.fakes.encoder import HashingEncoder

QUESTIONS = (
    ("maths", "addition", ("What is 12 plus 30?", "What is 7 plus 8?", "Add 4 plus 5.", "Compute 90 plus 3.")),
    ("maths", "multiplication", ("What is 12 times 30?", "What is 7 times 8?", "Multiply 4 times 5.", "Compute 90 times 3.")),
    (
        "facts",
        "capitals",
        ("Name the capital of France.", "Name the capital of Peru.", "Capital of Japan?", "Name the capital of Chad."),
    ),
    ("text", "reversing", ("Spell 'apple' backwards.", "Spell 'tree' backwards.", "Write 'house' backwards.", "Say 'lamp' backwards.")),
)


def card(expert_id: str, **fields: Any) -> ExpertCard:
    return ExpertCard(expert_id, Backend.EMBEDDED, expert_id, **fields)


def profile(expert_id: str, counts: Mapping[str, tuple[int, int]]) -> SkillProfile:
    """*counts*: skill to (answered, correct); overall is their sum."""
    by_skill = {skill: SkillCount(*count) for skill, count in counts.items()}
    return SkillProfile(expert_id, by_skill, sum(by_skill.values(), SkillCount()))


def specialists() -> dict[str, SkillProfile]:
    """Three narrow specialists and a broad generalist that is right a little more than half of the time."""
    skills = [skill for _, skill, _ in QUESTIONS]
    good = {"calculator": ("addition", "multiplication"), "atlas": ("capitals",), "mirror": ("reversing",)}
    profiles = {name: profile(name, {skill: (50, 48 if skill in own else 2) for skill in skills}) for name, own in good.items()}
    return {**profiles, "generalist": profile("generalist", dict.fromkeys(skills, (50, 28)))}


def labelled() -> list[LabelledQuestion]:
    return [
        LabelledQuestion(f"{skill}-{number}", text, "", category, (skill,))
        for category, skill, texts in QUESTIONS
        for number, text in enumerate(texts)
    ]


def snapshot_of(
    cards: Sequence[ExpertCard] | None = None, profiles: Mapping[str, SkillProfile] | None = None, *, version: int = 1
) -> RegistrySnapshot:
    known = specialists() if profiles is None else dict(profiles)
    cards = [card(expert_id) for expert_id in known] if cards is None else cards
    skills = {skill: "" for _, skill, _ in QUESTIONS}
    return RegistrySnapshot(version, 1, {c.id: c for c in cards}, {}, skills, known, {})


def request(*texts: str, session_id: str | None = None, model: str = "auto", access: Access = PUBLIC) -> ChatRequest:
    """A conversation of user turns, each but the last one answered with "ok"."""
    messages: list[Message] = []
    for text in texts:
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "ok"}]
    return ChatRequest("request-1", model, tuple(messages[:-1]), session_id=session_id, access=access)


def query(
    snapshot: RegistrySnapshot,
    *texts: str,
    pick: PickRule | None = None,
    seed: int = 0,
    fallback: str | None = None,
    session_id: str | None = None,
    model: str = "auto",
    only: Sequence[str] | None = None,
    access: Access = PUBLIC,
    **options: Any,
) -> RoutingQuery:
    experts = [c for c in snapshot.experts.values() if only is None or c.id in only]
    rule = pick or PickRule("top_k", 1)
    return RoutingQuery(request(*texts, session_id=session_id, model=model, access=access), experts, rule, seed, fallback, options)


async def holder_for(
    snapshot: RegistrySnapshot, encoder: HashingEncoder, questions: Sequence[LabelledQuestion] | None = None
) -> IndexHolder:
    holder = IndexHolder(encoder)
    await refresh(holder, snapshot, labelled() if questions is None else questions)
    return holder


async def refresh(holder: IndexHolder, snapshot: RegistrySnapshot, questions: Sequence[LabelledQuestion]) -> bool:
    async def load() -> Sequence[LabelledQuestion]:
        return questions

    async def vectors(_: str) -> Mapping[str, bytes]:
        return {}

    async def save(_: str, made: Mapping[str, bytes]) -> None:
        assert made

    return await holder.refresh(snapshot, load, vectors, save)


async def skills_router(
    snapshot: RegistrySnapshot,
    *,
    annotators: Mapping[str, Annotator] | None = None,
    sessions: SessionMemory | None = None,
    questions: Sequence[LabelledQuestion] | None = None,
) -> SkillsRouter:
    encoder = HashingEncoder()
    holder = await holder_for(snapshot, encoder, questions)
    known = {"embedding": EmbeddingAnnotator(encoder), **(annotators or {})}
    return SkillsRouter(holder, known, sessions=sessions)
