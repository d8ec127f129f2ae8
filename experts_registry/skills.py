"""The skills that there are: name and description."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict, NotFound
from domain.nearest import did_you_mean
from experts_registry import references, state
from experts_registry.database import Database
from experts_registry.tables import skills


@dataclass(frozen=True, slots=True)
class Skill:
    """A short label of what a query needs, and a sentence on what it covers."""

    name: str
    description: str = ""


Require = Callable[[Skill], object]
"""Raises when the stored skill is not what the caller thinks. Asked while nobody else can change it."""


def _anything(_: Skill) -> None: ...


async def read_skills(connection: AsyncConnection) -> dict[str, str]:
    """Every skill's description by name, in order of the names."""
    rows = (await connection.execute(sa.select(skills.c.name, skills.c.description))).all()
    return {row.name: row.description for row in sorted(rows)}


async def write_skills(connection: AsyncConnection, descriptions: Mapping[str, str]) -> None:
    """Add skills, and give those that are there the new description."""
    known = await read_skills(connection)
    for name, description in descriptions.items():
        if name not in known:
            await connection.execute(skills.insert(), {"name": name, "description": description})
        elif known[name] != description:
            await connection.execute(skills.update().where(skills.c.name == name).values(description=description))


async def add_missing_skills(connection: AsyncConnection, names: Iterable[str]) -> None:
    """Add those of *names* that are not there, without a description: what profiles use is a known skill."""
    wanted = set(names)
    if not wanted:
        return
    missing = sorted(wanted - (await read_skills(connection)).keys())
    if missing:
        await connection.execute(skills.insert(), [{"name": name, "description": ""} for name in missing])


class SkillStore:
    """Skills by name. Questions and profile runs add what they use by themselves."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> builtins.list[Skill]:
        """Every skill, by name."""
        async with self._database.reading() as connection:
            return [Skill(name, description) for name, description in (await read_skills(connection)).items()]

    async def get(self, name: str) -> Skill:
        """Raises ``NotFound`` with the nearest name."""
        async with self._database.reading() as connection:
            return await _one(connection, name)

    async def create(self, skill: Skill) -> Skill:
        """Raises ``Conflict`` when the name is taken."""
        async with self._database.session() as connection:
            await state.lock(connection)
            if skill.name in await read_skills(connection):
                raise Conflict(f"there is a skill {skill.name!r} already", param="name")
            await write_skills(connection, {skill.name: skill.description})
            await state.bump(connection)
        return skill

    async def replace(self, skill: Skill, *, require: Require = _anything) -> Skill:
        """Give a skill a new description. Raises ``NotFound``, and what *require* raises about the skill as it is now."""
        async with self._database.session() as connection:
            await state.lock(connection)
            require(await _one(connection, skill.name))
            await write_skills(connection, {skill.name: skill.description})
            await state.bump(connection)
        return skill

    async def delete(self, name: str, *, require: Require = _anything) -> None:
        """Raises ``NotFound``, what *require* raises about the skill as it is now, or ``Conflict`` while a card, a labelled
        question or a profile uses it."""
        async with self._database.session() as connection:
            await state.lock(connection)
            require(await _one(connection, name))
            if users := await references.users_of_skill(connection, name):
                raise Conflict(f"skill {name!r} is used by {', '.join(users)}: remove it there first", param="name")
            await connection.execute(skills.delete().where(skills.c.name == name))
            await state.bump(connection)


async def _one(connection: AsyncConnection, name: str) -> Skill:
    known = await read_skills(connection)
    if name not in known:
        raise NotFound(f"there is no skill {name!r}; {did_you_mean(name, sorted(known))}", param="name")
    return Skill(name, known[name])
