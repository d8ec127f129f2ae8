"""How experts did as aggregators, as rows, on a connection that a store has opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.evaluation import AggregatorOutcome
from domain.experts import ExpertCard
from domain.skills import AggregatorProfile, SkillCount
from experts_registry.experts import EXPERTS
from experts_registry.questions import chunks
from experts_registry.tables import aggregator_outcomes


async def select(connection: AsyncConnection) -> list[AggregatorOutcome]:
    """Every outcome, by expert and question."""
    rows = (await connection.execute(sa.select(aggregator_outcomes))).mappings()
    return sorted((AggregatorOutcome(**row) for row in rows), key=lambda outcome: (outcome.expert_id, outcome.question_id))


async def replace(connection: AsyncConnection, outcomes: Sequence[AggregatorOutcome]) -> None:
    """Put *outcomes* in the place of all that their experts had; of two for one question the later stands. Those that do not tell of which
    card of their expert they are get that of the one that is there."""
    cards = {card.id: card for card in await EXPERTS.some(connection, {outcome.expert_id for outcome in outcomes})}
    for expert_id in sorted({outcome.expert_id for outcome in outcomes}):
        await connection.execute(aggregator_outcomes.delete().where(aggregator_outcomes.c.expert_id == expert_id))
    distinct = {(outcome.expert_id, outcome.question_id): asdict(outcome) for outcome in outcomes}
    for row in distinct.values():
        if row["expert_fingerprint"] is None and row["expert_id"] in cards:
            row["expert_fingerprint"] = cards[row["expert_id"]].aggregator_fingerprint
    for rows in chunks(list(distinct.values())):
        await connection.execute(aggregator_outcomes.insert(), list(rows))


async def read_profiles(connection: AsyncConnection, cards: Mapping[str, ExpertCard]) -> dict[str, AggregatorProfile]:
    """The counts per expert and category. Outcomes with an error count for nothing, and so do those of older cards of the experts in
    *cards*."""
    columns = aggregator_outcomes.c
    num_correct = sa.func.sum(sa.case((columns.correct, 1), else_=0)).label("num_correct")
    key = (columns.expert_id, columns.category, columns.expert_fingerprint)
    statement = sa.select(*key, sa.func.count().label("num_answered"), num_correct).where(columns.error.is_(None)).group_by(*key)
    overall: defaultdict[str, SkillCount] = defaultdict(SkillCount)
    by_category: defaultdict[str, dict[str, SkillCount]] = defaultdict(dict)
    for row in (await connection.execute(statement)).all():
        card = cards.get(row.expert_id)
        if card is not None and card.aggregator_fingerprint != row.expert_fingerprint:
            continue
        count = SkillCount(row.num_answered, row.num_correct)
        overall[row.expert_id] += count
        if row.category is not None:
            by_category[row.expert_id][row.category] = by_category[row.expert_id].get(row.category, SkillCount()) + count
    return {
        expert_id: AggregatorProfile(expert_id, dict(sorted(by_category[expert_id].items())), overall[expert_id])
        for expert_id in sorted(overall)
    }
