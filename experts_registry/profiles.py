"""Profile runs, their graded outcomes, and the profiles that these add up to."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict, InvalidRequest, NotFound
from domain.evaluation import AggregatorOutcome, ProfileRunRecord, QuestionOutcome, RunState
from domain.nearest import did_you_mean
from domain.outcomes import OutcomeTable
from domain.skills import AggregatorProfile, SkillProfile
from experts_registry import aggregator_rows, outcome_matrix, outcome_rows, state
from experts_registry.database import Database
from experts_registry.experts import EXPERTS, read_fingerprints
from experts_registry.outcome_matrix import OutcomesVersion
from experts_registry.questions import chunks
from experts_registry.skills import add_missing_skills
from experts_registry.tables import experts, labelled_questions, profile_outcomes, profile_runs
from experts_registry.tally import to_profiles


@dataclass(frozen=True, slots=True)
class Example:
    """One answer that counts, and what was asked."""

    outcome: QuestionOutcome
    question: str | None
    """None when the question is gone."""
    expected: str | None

    @property
    def place(self) -> str:
        """Its place in the order of examples."""
        return f"{self.outcome.question_id} {self.outcome.expert_id}"


async def insert_run(connection: AsyncConnection, *, expert_ids: Sequence[str], question_ids: Sequence[str], note: str, now: float) -> str:
    """Add a running run and return its id."""
    run_id = f"run-{uuid.uuid4().hex[:16]}"
    row = {
        "id": run_id,
        "state": RunState.RUNNING.value,
        "created_at": now,
        "expert_ids": list(dict.fromkeys(expert_ids)),
        "question_ids": list(dict.fromkeys(question_ids)),
        "note": note,
    }
    await connection.execute(profile_runs.insert(), row)
    return run_id


async def record(connection: AsyncConnection, run_id: str, outcomes: Sequence[QuestionOutcome]) -> None:
    """Write outcomes and what they count; of two for one expert and question the later stands."""
    versions = await state.read_versions(connection)
    distinct = {(outcome.expert_id, outcome.question_id): outcome for outcome in outcomes}
    cards = await read_fingerprints(connection, {outcome.expert_id for outcome in outcomes})
    await outcome_rows.insert(connection, run_id, list(distinct.values()), recorded=versions.registry + 1, cards=cards)
    await add_missing_skills(connection, (label for outcome in distinct.values() for label in outcome.labels))


async def insert_finished_run(connection: AsyncConnection, outcomes: Sequence[QuestionOutcome], *, note: str, now: float) -> str:
    """Add a run that is over, with all of its outcomes, and return its id."""
    expert_ids = sorted({outcome.expert_id for outcome in outcomes})
    question_ids = sorted({outcome.question_id for outcome in outcomes})
    run_id = await insert_run(connection, expert_ids=expert_ids, question_ids=question_ids, note=note, now=now)
    await record(connection, run_id, outcomes)
    await set_run_state(connection, run_id, RunState.FINISHED, now=now)
    return run_id


async def set_run_state(connection: AsyncConnection, run_id: str, run_state: RunState, *, now: float) -> None:
    """Write where a run stands and when it came there."""
    await connection.execute(profile_runs.update().where(profile_runs.c.id == run_id).values(state=run_state.value, finished_at=now))


class ProfileStore:
    """Runs by id; outcomes per run, expert and question; profiles over all runs that were not rolled back.

    Of overlapping runs the newest answer counts, so each question counts once. An outcome with an error counts for nothing, and so does
    one of a card that its expert has no more (``ExpertCard.fingerprint``).
    """

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now
        self._outcomes: tuple[int, OutcomesVersion] | None = None
        """The registry's version when they were last looked through, and theirs."""
        self._ended: Mapping[str, tuple[int, int]] = {}
        """Outcomes, and right ones, of the runs that were over at the last look: no further one is added to them, none is changed, and
        counting them again would take longer with every run."""

    async def create_run(self, expert_ids: Sequence[str], question_ids: Sequence[str], note: str = "") -> str:
        """Start a run and return its id. Raises ``NotFound`` when an expert or question is not there, ``InvalidRequest`` when
        there is nothing to ask."""
        if not expert_ids or not question_ids:
            raise InvalidRequest("a profile run needs at least one expert and one labelled question", param="expert_ids")
        async with self._database.session() as connection:
            await state.lock(connection)
            await _require_known(connection, experts, expert_ids, "expert")
            await _require_known(connection, labelled_questions, question_ids, "labelled question")
            return await insert_run(connection, expert_ids=expert_ids, question_ids=question_ids, note=note, now=self._now())

    async def import_outcomes(
        self, outcomes: Sequence[QuestionOutcome], aggregator_outcomes: Sequence[AggregatorOutcome], note: str = ""
    ) -> str | None:
        """Keep what was measured elsewhere, all of it or nothing; returns the finished run of *outcomes*, None without any.

        *aggregator_outcomes* belong to no run: they replace what their experts had. Raises ``NotFound`` when an expert or
        question is not there.
        """
        async with self._database.session() as connection:
            await state.lock(connection)
            expert_ids = [outcome.expert_id for outcome in outcomes] + [outcome.expert_id for outcome in aggregator_outcomes]
            await _require_known(connection, experts, expert_ids, "expert")
            await _require_known(connection, labelled_questions, [outcome.question_id for outcome in outcomes], "labelled question")
            run_id = await insert_finished_run(connection, outcomes, note=note, now=self._now()) if outcomes else None
            await aggregator_rows.replace(connection, aggregator_outcomes)
            await state.bump(connection)
        return run_id

    async def list_runs(self) -> list[ProfileRunRecord]:
        """Every run, newest first."""
        async with self._database.reading() as connection:
            runs = await _read_runs(connection, None, self._ended)
        self._ended = {run.id: (run.num_recorded, run.num_correct) for run in runs if run.state is not RunState.RUNNING}
        return sorted(runs, key=lambda run: (-run.created_at, run.id))

    async def get_run(self, run_id: str) -> ProfileRunRecord:
        """Raises ``NotFound``."""
        async with self._database.reading() as connection:
            return await _one_run(connection, run_id)

    async def finish_run(self, run_id: str) -> ProfileRunRecord:
        """Close a run: it takes no more outcomes. Closing it twice changes nothing. Raises ``Conflict`` when it was rolled back."""
        async with self._database.session() as connection:
            await state.lock(connection)
            run = await _one_run(connection, run_id)
            if run.state is RunState.ROLLED_BACK:
                raise Conflict(f"profile run {run_id!r} was rolled back: start a new one", param="id")
            if run.state is RunState.RUNNING:
                await set_run_state(connection, run_id, RunState.FINISHED, now=self._now())
            return await _one_run(connection, run_id)

    async def rollback_run(self, run_id: str, *, require: Callable[[ProfileRunRecord], object] = lambda _: None) -> ProfileRunRecord:
        """Take a run back, finished or not: its counts vanish from the profiles, and what it replaced counts again.

        The outcomes themselves stay readable. Doing it twice changes nothing. Raises ``NotFound``, and what *require* raises
        about the run as it is now.
        """
        async with self._database.session() as connection:
            await state.lock(connection)
            run = await _one_run(connection, run_id)
            require(run)
            if run.state is not RunState.ROLLED_BACK:
                cards = await read_fingerprints(connection, run.expert_ids)
                await outcome_rows.retire(connection, run_id, cards=cards)
                await set_run_state(connection, run_id, RunState.ROLLED_BACK, now=self._now())
                await state.bump(connection)
            return await _one_run(connection, run_id)

    async def record_outcomes(self, run_id: str, outcomes: Sequence[QuestionOutcome]) -> None:
        """Keep *outcomes*, all or none; one per run, expert and question, a later answer in place of an earlier one.

        Profiles change at once. Recording the same again changes nothing. Raises ``NotFound``, ``Conflict`` when the run
        takes no more outcomes.
        """
        if not outcomes:
            return
        async with self._database.session() as connection:
            await state.lock(connection)
            run_state = await connection.scalar(sa.select(profile_runs.c.state).where(profile_runs.c.id == run_id))
            if run_state is None:
                await _one_run(connection, run_id)  # raises, with the nearest id
            if run_state != RunState.RUNNING.value:
                raise Conflict(f"profile run {run_id!r} is {str(run_state).replace('_', ' ')}: start a new one", param="id")
            await record(connection, run_id, outcomes)
            await state.bump(connection)

    async def outcomes(self, run_id: str | None = None) -> list[QuestionOutcome]:
        """Those of one run; without *run_id* the ones that count in the profiles. By expert and question."""
        async with self._database.reading() as connection:
            if run_id is None:
                return await outcome_rows.select(connection, profile_outcomes.c.counts)
            await _one_run(connection, run_id)
            return await outcome_rows.select(connection, profile_outcomes.c.run_id == run_id)

    async def examples(
        self,
        *,
        expert_id: str | None = None,
        skill: str | None = None,
        correct: bool | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> list[Example]:
        """Answers that count in the profiles, with their questions, by question and expert; the page behind the one that ended with
        ``Example.place`` *after*. Questions that are gone are told by their id alone."""
        outcome, asked = profile_outcomes.c, labelled_questions.c
        conditions: list[sa.ColumnElement[bool]] = [outcome.counts]
        if expert_id is not None:
            conditions.append(outcome.expert_id == expert_id)
        if correct is not None:
            conditions.append(outcome.correct if correct else ~outcome.correct)
        if after is not None:
            question, _, expert = after.rpartition(" ")
            conditions.append(sa.tuple_(outcome.question_id, outcome.expert_id) > sa.tuple_(sa.literal(question), sa.literal(expert)))
        if skill is not None:
            # As JSON lists, skills cannot be asked for with an index. The category stands for them where there are none.
            listed = sa.cast(outcome.skills, sa.Text)
            conditions.append(listed.contains(json.dumps(skill), autoescape=True) | ((outcome.category == skill) & (listed == "[]")))
        statement = (
            sa.select(profile_outcomes, asked.question, asked.answer.label("expected"))
            .outerjoin(labelled_questions, outcome.question_id == asked.id)
            .where(*conditions)
            .order_by(outcome.question_id, outcome.expert_id)
            .limit(limit)
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(statement)).mappings().all()
        return [Example(outcome_rows.from_row(row), row["question"], row["expected"]) for row in rows]

    async def outcome_table(self, expert_ids: Sequence[str]) -> OutcomeTable:
        """What counts of *expert_ids* on the labelled questions that are there, 8 bytes a cell; neither questions nor experts
        without any. Read in pages, all of one moment."""
        async with self._database.reading() as connection:
            return await outcome_matrix.read_table(connection, expert_ids)

    async def outcomes_version(self) -> OutcomesVersion:
        """Equal as long as the same outcomes count. They are looked through only after something in the registry has changed."""
        async with self._database.reading() as connection:
            registry = (await state.read_versions(connection)).registry
            if self._outcomes is None or self._outcomes[0] != registry:
                self._outcomes = registry, await outcome_matrix.read_version(connection)
            return self._outcomes[1]

    async def mean_latencies(self) -> dict[str, float]:
        """Expert id to the mean latency of the outcomes that count, in milliseconds."""
        async with self._database.reading() as connection:
            return await outcome_matrix.read_latencies(connection)

    async def profiles(self) -> dict[str, SkillProfile]:
        """Expert id to its measured skills."""
        async with self._database.reading() as connection:
            return to_profiles(await outcome_rows.read_counts(connection))

    async def outdated(self) -> dict[str, int]:
        """Expert id to the number of questions that only older cards of it have answered; experts without any are left out."""
        async with self._database.reading() as connection:
            return await outcome_rows.read_outdated(connection)

    async def set_aggregator_outcomes(self, outcomes: Sequence[AggregatorOutcome]) -> None:
        """Replace what was measured about the experts in *outcomes* as aggregators; others keep theirs."""
        async with self._database.session() as connection:
            await state.lock(connection)
            await aggregator_rows.replace(connection, outcomes)
            await state.bump(connection)

    async def aggregator_outcomes(self) -> list[AggregatorOutcome]:
        """Every outcome, by expert and question."""
        async with self._database.reading() as connection:
            return await aggregator_rows.select(connection)

    async def aggregator_profiles(self) -> dict[str, AggregatorProfile]:
        """Expert id to how well it aggregates, per category; older cards' answers count for nothing."""
        async with self._database.reading() as connection:
            cards = {card.id: card for card in await EXPERTS.all(connection)}
            return await aggregator_rows.read_profiles(connection, cards)


async def _require_known(connection: AsyncConnection, table: sa.Table, ids: Sequence[str], noun: str) -> None:
    known = set((await connection.scalars(sa.select(table.c.id))).all())
    for item_id in ids:
        if item_id not in known:
            hint = did_you_mean(item_id, sorted(known))
            raise NotFound(f"there is no {noun} {item_id!r}; {hint}", param=f"{noun.rsplit(maxsplit=1)[-1]}_ids")


async def _one_run(connection: AsyncConnection, run_id: str) -> ProfileRunRecord:
    found = await _read_runs(connection, run_id, {})
    if not found:
        known = (await connection.scalars(sa.select(profile_runs.c.id))).all()
        raise NotFound(f"there is no profile run {run_id!r}; {did_you_mean(run_id, sorted(known))}", param="id")
    return found[0]


async def _read_runs(connection: AsyncConnection, run_id: str | None, known: Mapping[str, tuple[int, int]]) -> list[ProfileRunRecord]:
    """All runs, or that one. *known* are the counts of those that need not be counted."""
    rows = (await connection.execute(sa.select(profile_runs).where(*([] if run_id is None else [profile_runs.c.id == run_id])))).all()
    counts = {**known, **await _counted(connection, [row.id for row in rows if row.id not in known])}
    return [
        ProfileRunRecord(
            id=row.id,
            state=RunState(row.state),
            created_at=row.created_at,
            finished_at=row.finished_at,
            expert_ids=tuple(row.expert_ids),
            question_ids=tuple(row.question_ids),
            note=row.note,
            num_recorded=counts[row.id][0],
            num_correct=counts[row.id][1],
        )
        for row in rows
    ]


async def _counted(connection: AsyncConnection, run_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Outcomes, and right ones, of each run."""
    outcome, found = profile_outcomes.c, dict.fromkeys(run_ids, (0, 0))
    for some in chunks(run_ids):
        # Each from an index of its own: of large runs, reading the rows takes a hundred times as long.
        counting = sa.select(outcome.run_id, sa.func.count()).where(outcome.run_id.in_(some)).group_by(outcome.run_id)
        right = {row[0]: row[1] for row in await connection.execute(counting.where(sa.text("correct AND error IS NULL")))}
        found |= {row[0]: (row[1], right.get(row[0], 0)) for row in await connection.execute(counting)}
    return found
