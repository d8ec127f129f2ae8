"""The first content of an empty database."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from domain.evaluation import AggregatorOutcome, QuestionOutcome
from domain.skills import LabelledQuestion
from experts_registry import aggregator_rows, profiles, state
from experts_registry.apply import write_manifest
from experts_registry.database import Database
from experts_registry.manifest import load_manifest
from experts_registry.questions import write_questions


async def seed_if_empty(
    database: Database,
    manifest_text: str,
    questions: Sequence[LabelledQuestion],
    outcomes: Sequence[QuestionOutcome],
    aggregator_outcomes: Sequence[AggregatorOutcome],
    *,
    source: str = "zoo",
    now: Callable[[], float] = time.time,
) -> bool:
    """Fill a registry that never held anything; returns whether it did. All of it or nothing, and once, however many
    processes start together.

    A registry that somebody has emptied is left empty. *outcomes* become one finished profile run that can be rolled back.
    Raises ``InvalidRequest`` when the manifest is wrong.
    """
    manifest = load_manifest(manifest_text)
    async with database.session() as connection:
        versions = await state.lock(connection)
        if versions.registry > 0:
            return False
        await write_questions(connection, questions, source=source, now=now())
        await write_manifest(connection, manifest, prune=False)
        if outcomes:
            await profiles.insert_finished_run(connection, outcomes, note=source, now=now())
        await aggregator_rows.replace(connection, aggregator_outcomes)
        await state.bump(connection, questions=True)
    return True
