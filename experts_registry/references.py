"""What one thing in the registry says about another must be true; asked on a connection that holds the registry's lock."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Sequence
from textwrap import shorten

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import InvalidRequest
from domain.experts import ExpertCard
from domain.nearest import MISSPELT, did_you_mean, nearest
from domain.skills import LabelledQuestion
from domain.strategy import Strategy
from experts_registry.tables import experts, labelled_questions, profile_counts, skills

_MAX_SHOWN = 60
"""Characters of a question that a message shows: enough to find it where the file gives no ids."""


async def require_skills(connection: AsyncConnection, card: ExpertCard) -> None:
    """Every declared skill is known; else ``InvalidRequest`` with the nearest that is."""
    if not card.skills:
        return
    known = set((await connection.scalars(sa.select(skills.c.name))).all())
    for position, skill in enumerate(card.skills):
        if skill not in known:
            raise InvalidRequest(
                f"expert {card.id!r} declares the unknown skill {skill!r}; {did_you_mean(skill, sorted(known))} "
                "(a new skill has to be listed under `skills:`)",
                param=f"skills[{position}]",
            )


async def add_declared_skills(connection: AsyncConnection, card: ExpertCard) -> tuple[str, ...]:
    """Make every declared skill known, and return those that were not; ``InvalidRequest`` for one that looks like a
    misspelling of a known one: two spellings of one skill would split what is measured about it."""
    if not card.skills:
        return ()
    known = set((await connection.scalars(sa.select(skills.c.name))).all())
    new = [(position, skill) for position, skill in enumerate(card.skills) if skill not in known]
    for position, skill in new:
        _require_no_misspelling(skill, known, who=f"expert {card.id!r} declares", param=f"skills[{position}]")
    await _insert(connection, [skill for _, skill in new])
    return tuple(skill for _, skill in new)


async def add_skills_of_questions(connection: AsyncConnection, questions: Iterable[LabelledQuestion]) -> None:
    """Make every skill of *questions* known, and the category of one without skills; ``InvalidRequest`` that names the question
    for one that looks like a misspelling, as for cards."""
    first: dict[str, tuple[LabelledQuestion, str]] = {}
    for question in questions:
        for position, label in enumerate(question.labels):
            first.setdefault(label, (question, f"skills[{position}]" if question.skills else "category"))
    if not first:
        return
    known = set((await connection.scalars(sa.select(skills.c.name))).all())
    new = sorted(first.keys() - known)
    for label in new:
        question, param = first[label]
        who = f"question {question.id!r} ({shorten(question.question, _MAX_SHOWN, placeholder='…')}): {param} names"
        _require_no_misspelling(label, known, who=who, param=param)
    await _insert(connection, new)


def _require_no_misspelling(skill: str, known: Collection[str], *, who: str, param: str) -> None:
    if near := nearest(skill, known, similarity=MISSPELT):
        raise InvalidRequest(
            f"{who} the unknown skill {skill!r}; did you mean {near!r}? "
            f"If it is another skill, add it first: consilium skills add {shlex.quote(skill)}",
            param=param,
        )


async def _insert(connection: AsyncConnection, names: Sequence[str]) -> None:
    if names:
        await connection.execute(skills.insert(), [{"name": name, "description": ""} for name in names])


async def require_experts(connection: AsyncConnection, strategy: Strategy) -> None:
    """The experts that *strategy* names are there; else ``InvalidRequest`` with the nearest that is."""
    named = strategy.named_experts()
    if not named:
        return
    known = set((await connection.scalars(sa.select(experts.c.id))).all())
    for field, expert_id in named.items():
        if expert_id not in known:
            raise InvalidRequest(
                f"strategy {strategy.id!r} names the unknown expert {expert_id!r}; {did_you_mean(expert_id, sorted(known))}", param=field
            )


async def users_of_skill(connection: AsyncConnection, skill: str) -> list[str]:
    """Who needs *skill* to stay, in words; empty when nobody does."""
    cards = await connection.execute(sa.select(experts.c.id, experts.c.skills))
    users = sorted(f"expert {row.id}" for row in cards if skill in row.skills)
    questions = await connection.execute(sa.select(labelled_questions.c.skills, labelled_questions.c.category))
    if any(skill in (row.skills or [row.category]) for row in questions):
        users.append("labelled questions")
    if await connection.scalar(sa.select(profile_counts.c.skill).where(profile_counts.c.skill == skill).limit(1)) is not None:
        users.append("measured profiles")
    return users
