"""The first content of an empty database: the zoo, as it was measured when it was packaged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from domain.evaluation import AggregatorOutcome, QuestionOutcome
from domain.skills import LabelledQuestion
from experts_registry.seed import seed_if_empty
from zoo import release

if TYPE_CHECKING:
    from experts_registry.database import Database

log = logging.getLogger(__name__)

T = TypeVar("T", LabelledQuestion, QuestionOutcome, AggregatorOutcome)


async def seed_with_zoo(database: Database) -> None:
    """Fill a database that never held anything; any other is left as it is."""
    questions, outcomes, aggregated = await asyncio.to_thread(_read)
    if await seed_if_empty(database, release.manifest_text(), questions, outcomes, aggregated, source="zoo"):
        log.info("the empty database was filled with the zoo: %d labelled questions, %d outcomes", len(questions), len(outcomes))


def _read() -> tuple[list[LabelledQuestion], list[QuestionOutcome], list[AggregatorOutcome]]:
    return (
        [_of(LabelledQuestion, row) for row in release.labelled_questions()],
        [_of(QuestionOutcome, row) for row in release.outcomes()],
        [_of(AggregatorOutcome, row) for row in release.aggregator_outcomes()],
    )


def _of(kind: type[T], row: Mapping[str, Any]) -> T:
    """*row* as *kind*. Keys that it does not have (the zoo's own marks) are left out; lists become tuples."""
    known = {field.name for field in fields(kind)}
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items() if key in known}
    return kind(**given)
