"""The stores of one database, together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from experts_registry.database import Database
from experts_registry.experts import CardCheck, ExpertStore, accept_any
from experts_registry.profiles import ProfileStore
from experts_registry.questions import QuestionStore
from experts_registry.skills import SkillStore
from experts_registry.strategies import StrategyStore


@dataclass(frozen=True, slots=True)
class Stores:
    """Each of them works in transactions of its own. Traces have a life of their own (``traces.py``)."""

    database: Database
    experts: ExpertStore
    strategies: StrategyStore
    skills: SkillStore
    questions: QuestionStore
    profiles: ProfileStore

    @classmethod
    def of(cls, database: Database, *, check_card: CardCheck = accept_any) -> Self:
        """Every store of *database*; *check_card* as in ``ExpertStore``."""
        return cls(
            database=database,
            experts=ExpertStore(database, check_card=check_card),
            strategies=StrategyStore(database),
            skills=SkillStore(database),
            questions=QuestionStore(database),
            profiles=ProfileStore(database),
        )
