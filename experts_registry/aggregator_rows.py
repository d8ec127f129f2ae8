"""How experts did as aggregators, as rows, on a connection that a store has opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.evaluation import AggregatorOutcome
from domain.skills import AggregatorProfile, SkillCount
from experts_registry.questions import chunks
from experts_registry.tables import aggregator_outcomes


async def select(connection: AsyncConnection) -> list[AggregatorOutcome]:
    """Every outcome, by expert and question."""
    rows = (await connection.execute(sa.select(aggregator_outcomes))).mappings()
    return sorted((AggregatorOutcome(**row) for row in rows), key=lambda outcome: (outcome.expert_id, outcome.question_id))


async def replace(connection: AsyncConnection, outcomes: Sequence[AggregatorOutcome]) -> None:
    """Put *outcomes* in the place of all that their experts had; of two for one question the later stands."""
    for expert_id in sorted({outcome.expert_id for outcome in outcomes}):
        await connection.execute(aggregator_outcomes.delete().where(aggregator_outcomes.c.expert_id == expert_id))
    distinct = {(outcome.expert_id, outcome.question_id): asdict(outcome) for outcome in outcomes}
    for rows in chunks(list(distinct.values())):
        await connection.execute(aggregator_outcomes.insert(), list(rows))


async def read_profiles(connection: AsyncConnection) -> dict[str, AggregatorProfile]:
    """The counts per expert and category; outcomes with an error count for nothing."""
    num_correct = sa.func.sum(sa.case((aggregator_outcomes.c.correct, 1), else_=0)).label("num_correct")
    key = (aggregator_outcomes.c.expert_id, aggregator_outcomes.c.category)
    statement = (
        sa.select(*key, sa.func.count().label("num_answered"), num_correct).where(aggregator_outcomes.c.error.is_(None)).group_by(*key)
    )
    overall: defaultdict[str, SkillCount] = defaultdict(SkillCount)
    by_category: defaultdict[str, dict[str, SkillCount]] = defaultdict(dict)
    for row in (await connection.execute(statement)).all():
        count = SkillCount(row.num_answered, row.num_correct)
        overall[row.expert_id] += count
        if row.category is not None:
            by_category[row.expert_id][row.category] = count
    return {
        expert_id: AggregatorProfile(expert_id, dict(sorted(by_category[expert_id].items())), overall[expert_id])
        for expert_id in sorted(overall)
    }
