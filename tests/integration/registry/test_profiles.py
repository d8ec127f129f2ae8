"""Runs, outcomes and the profiles they add up to."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from sqlalchemy import event

from domain.errors import Conflict, InvalidRequest, NotFound, StorageError
from domain.evaluation import AggregatorOutcome, RunState
from domain.skills import AggregatorProfile, SkillCount, SkillProfile
from experts_registry import aggregator_rows
from experts_registry.profiles import ProfileStore
from experts_registry.stores import Stores
from experts_registry.tally import tally, to_profiles
from tests.fakes.registry import make_card, make_outcome, make_question

QUESTIONS = ("q1", "q2", "q3")


@pytest.fixture(name="profiles")
async def _profiles(stores: Stores) -> ProfileStore:
    """With two experts and three questions."""
    await stores.questions.add([make_question(question_id) for question_id in QUESTIONS], source="test")
    for expert_id in ("numerals", "generalist"):
        await stores.experts.create(make_card(expert_id))
    return stores.profiles


async def _run(profiles: ProfileStore, *experts: str) -> str:
    return await profiles.create_run(experts or ("numerals",), QUESTIONS, note="test")


async def test_a_run_is_followed_from_start_to_end(profiles: ProfileStore) -> None:
    run_id = await _run(profiles, "numerals", "generalist")
    await profiles.record_outcomes(run_id, [make_outcome(question_id="q1"), make_outcome(question_id="q2", correct=False)])
    running = await profiles.get_run(run_id)
    finished = await profiles.finish_run(run_id)

    assert (running.state, running.num_recorded, running.num_correct, running.num_planned) == (RunState.RUNNING, 2, 1, 6)
    assert (running.expert_ids, running.question_ids, running.note) == (("numerals", "generalist"), QUESTIONS, "test")
    assert finished.state is RunState.FINISHED
    assert finished.finished_at is not None
    assert await profiles.finish_run(run_id) == finished
    assert await profiles.list_runs() == [finished]


async def test_examples_of_a_skill_are_those_that_count_for_it(profiles: ProfileStore) -> None:
    """A question's category stands for its skills only where it has none."""
    run_id = await _run(profiles)
    outcomes = [
        make_outcome(question_id="q1", skills=("algebra",), category="maths"),
        make_outcome(question_id="q2", skills=("maths", 'a "b"'), category=None),
        make_outcome(question_id="q3", skills=(), category="maths"),
    ]
    await profiles.record_outcomes(run_id, outcomes)

    async def of(skill: str) -> list[str]:
        return [example.outcome.question_id for example in await profiles.examples(skill=skill)]

    assert (await of("algebra"), await of("maths"), await of('a "b"'), await of("b")) == (["q1"], ["q2", "q3"], ["q2"], [])


async def test_recording_an_answer_looks_at_no_other_run_and_putting_a_question_at_no_other(stores: Stores, profiles: ProfileStore) -> None:
    """Both happen thousands of times while there are hundreds of thousands."""
    run_id = await _run(profiles)
    statements: list[str] = []
    event.listen(stores.database.engine.sync_engine, "before_cursor_execute", lambda *asked: statements.append(asked[2]))
    await profiles.record_outcomes(run_id, [make_outcome(question_id="q1")])
    one_run = len(statements)
    await stores.questions.put(make_question("q2", answer="another"), source="test")

    def reading(table: str, some: list[str]) -> list[str]:
        return [said for said in some if said.startswith("SELECT") and f"FROM {table}" in said]

    assert not [said for said in reading("profile_outcomes", statements[:one_run]) if "run_id" not in said and "expert_id" not in said]
    assert not [said for said in reading("profile_outcomes", statements[:one_run]) if "GROUP BY" in said]
    asked = reading("labelled_questions", statements[one_run:])
    assert asked
    assert all("WHERE labelled_questions.id" in said for said in asked)


async def test_one_run_of_several_is_told_with_its_own_counts(profiles: ProfileStore) -> None:
    first, second, empty = await _run(profiles), await _run(profiles), await _run(profiles)
    await profiles.record_outcomes(first, [make_outcome(question_id="q1"), make_outcome(question_id="q2", correct=False)])
    await profiles.record_outcomes(second, [make_outcome(question_id="q1")])
    found = [await profiles.get_run(run_id) for run_id in (first, second, empty)]

    assert [(run.num_recorded, run.num_correct) for run in found] == [(2, 1), (1, 1), (0, 0)]
    assert {run.id: run for run in found} == {run.id: run for run in await profiles.list_runs()}


async def test_runs_that_are_over_are_counted_once(stores: Stores, profiles: ProfileStore) -> None:
    """Of hundreds of runs, each of hundreds of thousands of answers, a list would otherwise take seconds."""
    first, second = await _run(profiles), await _run(profiles)
    for run_id in (first, second):
        await profiles.record_outcomes(run_id, [make_outcome(question_id="q1"), make_outcome(question_id="q2", correct=False)])
    await profiles.finish_run(first)
    before = await profiles.list_runs()
    asked: list[Any] = []
    event.listen(stores.database.engine.sync_engine, "before_cursor_execute", lambda *told: asked.append((told[2], told[3])))
    assert await profiles.list_runs() == before
    counting = [parameters for statement, parameters in asked if "count(*)" in statement]
    assert counting
    assert not [parameters for parameters in counting if first in str(parameters)]

    await profiles.record_outcomes(second, [make_outcome(question_id="q3")])
    await profiles.finish_run(second)
    await profiles.rollback_run(first)

    told = {run.id: (run.state, run.num_recorded, run.num_correct) for run in await profiles.list_runs()}
    assert told == {first: (RunState.ROLLED_BACK, 2, 1), second: (RunState.FINISHED, 3, 2)}


async def test_outcomes_are_looked_through_for_their_version_only_after_a_change(stores: Stores, profiles: ProfileStore) -> None:
    run_id = await _run(profiles)
    statements: list[str] = []
    event.listen(stores.database.engine.sync_engine, "before_cursor_execute", lambda *asked: statements.append(asked[2]))
    first = await profiles.outcomes_version()
    again = await profiles.outcomes_version()
    num_looks = sum("FROM profile_outcomes" in said for said in statements)
    await profiles.record_outcomes(run_id, [make_outcome(question_id="q1")])

    assert (first == again, num_looks) == (True, 1)
    assert await profiles.outcomes_version() != first


async def test_what_was_measured_elsewhere_is_a_finished_run(profiles: ProfileStore) -> None:
    """Rolling it back leaves the aggregators' answers, which belong to no run."""
    run_id = await profiles.import_outcomes([make_outcome()], [AggregatorOutcome("generalist", "q1", "x", correct=True)], "imported")
    assert run_id is not None
    run = await profiles.get_run(run_id)
    counted = await profiles.profiles()
    await profiles.rollback_run(run_id)

    assert (run.state, run.num_recorded, run.note) == (RunState.FINISHED, 1, "imported")
    assert counted["numerals"].overall == SkillCount(1, 1)
    assert await profiles.profiles() == {}
    assert (await profiles.aggregator_profiles())["generalist"].overall == SkillCount(1, 1)
    assert await profiles.import_outcomes([], [AggregatorOutcome("generalist", "q1", "x", correct=False)]) is None
    assert (await profiles.aggregator_profiles())["generalist"].overall == SkillCount(1, 0)


async def test_an_import_is_stored_as_a_whole_or_not_at_all(profiles: ProfileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers were written when the aggregators' fail: no run, no counts, no half of it."""

    async def fails(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(aggregator_rows, "replace", fails)
    with pytest.raises(StorageError):
        await profiles.import_outcomes([make_outcome()], [AggregatorOutcome("generalist", "q1", "x", correct=True)])

    assert await profiles.list_runs() == []
    assert await profiles.profiles() == {}


@pytest.mark.parametrize(
    ("expert", "aggregator", "question"), [("x", "numerals", "q1"), ("numerals", "x", "q1"), ("numerals", "numerals", "x")]
)
async def test_an_import_names_what_is_not_here(profiles: ProfileStore, expert: str, aggregator: str, question: str) -> None:
    with pytest.raises(NotFound, match="'x'"):
        await profiles.import_outcomes([make_outcome(expert, question)], [AggregatorOutcome(aggregator, "q1", "x", correct=True)])


async def test_outcomes_come_back_as_they_went_in(profiles: ProfileStore) -> None:
    full = make_outcome(skills=("a", "b"), category="c", correct=False, answer="XV 🏛", latency_ms=12.5)
    failed = make_outcome(question_id="q2", correct=False, answer="", error="expert_timeout: too slow")
    run_id = await _run(profiles)
    await profiles.record_outcomes(run_id, [failed, full])

    assert await profiles.outcomes(run_id) == [full, failed]
    assert await profiles.outcomes() == [full]


async def test_an_answer_that_no_text_column_holds_is_kept_without_the_bad_characters(profiles: ProfileStore) -> None:
    run_id = await _run(profiles)
    await profiles.record_outcomes(run_id, [make_outcome(answer="a\0b\ud800c")])

    assert [outcome.answer for outcome in await profiles.outcomes(run_id)] == ["a\ufffdb\ufffdc"]


async def test_profiles_count_per_skill_and_each_question_once_overall(profiles: ProfileStore) -> None:
    run_id = await _run(profiles)
    await profiles.record_outcomes(
        run_id,
        [
            make_outcome(question_id="q1", skills=("a", "b")),
            make_outcome(question_id="q2", skills=("a",), correct=False),
            make_outcome(question_id="q3", skills=(), category="c"),
        ],
    )

    by_skill = {"a": SkillCount(2, 1), "b": SkillCount(1, 1), "c": SkillCount(1, 1)}
    assert await profiles.profiles() == {"numerals": SkillProfile("numerals", by_skill, SkillCount(3, 2))}


async def test_recording_the_same_again_changes_nothing(profiles: ProfileStore) -> None:
    """So that a run which was killed between writing and noticing may write again."""
    run_id = await _run(profiles)
    outcomes = [make_outcome(question_id=question_id) for question_id in QUESTIONS]
    await profiles.record_outcomes(run_id, outcomes)
    before = await profiles.profiles()
    await profiles.record_outcomes(run_id, outcomes + outcomes)

    assert await profiles.profiles() == before
    assert await profiles.outcomes(run_id) == outcomes


async def test_of_overlapping_runs_the_newest_answer_counts_and_others_add_up(profiles: ProfileStore) -> None:
    first, second = await _run(profiles), await _run(profiles)
    await profiles.record_outcomes(first, [make_outcome(question_id="q1", correct=False), make_outcome(question_id="q2")])
    await profiles.record_outcomes(second, [make_outcome(question_id="q1"), make_outcome(question_id="q3")])

    assert (await profiles.profiles())["numerals"].overall == SkillCount(3, 3)
    assert [outcome.correct for outcome in await profiles.outcomes(first)] == [False, True]


async def test_rolling_back_brings_back_what_was_replaced(profiles: ProfileStore) -> None:
    first, second = await _run(profiles), await _run(profiles)
    await profiles.record_outcomes(first, [make_outcome(question_id="q1", correct=False)])
    before = await profiles.profiles()
    await profiles.record_outcomes(second, [make_outcome(question_id="q1"), make_outcome(question_id="q3")])

    rolled_back = await profiles.rollback_run(second)

    assert rolled_back.state is RunState.ROLLED_BACK
    assert await profiles.profiles() == before
    assert len(await profiles.outcomes(second)) == 2
    assert await profiles.rollback_run(second) == rolled_back
    await profiles.rollback_run(first)
    assert await profiles.profiles() == {}


async def test_a_failed_call_counts_for_nothing_and_replaces_no_answer(profiles: ProfileStore) -> None:
    """A server that is down while it is measured again does not wipe out what is known."""
    first, second = await _run(profiles), await _run(profiles)
    failed = make_outcome(question_id="q1", correct=False, error="expert_unreachable: refused")
    await profiles.record_outcomes(first, [make_outcome(question_id="q1")])
    before = await profiles.profiles()
    await profiles.record_outcomes(second, [failed])
    await profiles.record_outcomes(first, [failed])

    assert await profiles.profiles() == before
    assert await profiles.outcomes(second) == [failed]
    assert await profiles.outcomes(first) == [make_outcome(question_id="q1")]


async def test_an_answer_takes_the_place_of_an_earlier_failure(profiles: ProfileStore) -> None:
    run_id = await _run(profiles)
    await profiles.record_outcomes(run_id, [make_outcome(correct=False, error="expert_timeout: slow")])
    await profiles.record_outcomes(run_id, [make_outcome()])

    assert await profiles.outcomes(run_id) == [make_outcome()]
    assert (await profiles.profiles())["numerals"].overall == SkillCount(1, 1)


async def test_a_run_that_is_over_takes_no_outcomes(profiles: ProfileStore) -> None:
    finished, rolled_back = await _run(profiles), await _run(profiles)
    await profiles.finish_run(finished)
    await profiles.rollback_run(rolled_back)

    with pytest.raises(Conflict, match="is finished"):
        await profiles.record_outcomes(finished, [make_outcome()])
    with pytest.raises(Conflict, match="is rolled back"):
        await profiles.record_outcomes(rolled_back, [make_outcome()])
    with pytest.raises(Conflict, match="was rolled back"):
        await profiles.finish_run(rolled_back)


async def test_a_run_over_what_is_not_there_is_refused(profiles: ProfileStore) -> None:
    with pytest.raises(NotFound, match="no expert 'numeral'; did you mean 'numerals'"):
        await profiles.create_run(["numeral"], ["q1"])
    with pytest.raises(NotFound, match="no labelled question 'q9'"):
        await profiles.create_run(["numerals"], ["q9"])
    with pytest.raises(InvalidRequest):
        await profiles.create_run(["numerals"], [])
    with pytest.raises(NotFound, match="no profile run 'run-x'"):
        await profiles.record_outcomes("run-x", [make_outcome()])


async def test_what_was_measured_outlives_its_question_and_expert(profiles: ProfileStore, stores: Stores) -> None:
    run_id = await _run(profiles)
    await profiles.record_outcomes(run_id, [make_outcome()])
    for question_id in QUESTIONS:
        await stores.questions.remove(question_id)
    await stores.experts.delete("numerals")

    assert (await profiles.profiles())["numerals"].overall == SkillCount(1, 1)


@pytest.mark.parametrize("seed", range(3))
async def test_kept_counts_are_those_of_the_outcomes_that_count(profiles: ProfileStore, seed: int) -> None:
    """Whatever is recorded and rolled back in whatever order."""
    random = Random(seed)
    runs = [await _run(profiles, "numerals", "generalist") for _ in range(4)]
    rolled_back: set[str] = set()
    newest: dict[tuple[str, str], list[tuple[str, object]]] = {}
    for _ in range(30):
        run_id = random.choice([run for run in runs if run not in rolled_back])
        if random.random() < 0.1 and len(rolled_back) < 3:
            await profiles.rollback_run(run_id)
            rolled_back.add(run_id)
            continue
        batch = {
            pair: make_outcome(
                *pair,
                correct=random.random() < 0.5,
                skills=tuple(random.sample("abc", random.randint(0, 2))),
                category=random.choice((None, "z")),
                error=random.choice((None, None, "expert_timeout: slow")),
            )
            for pair in [(random.choice(("numerals", "generalist")), random.choice(QUESTIONS)) for _ in range(4)]
        }
        await profiles.record_outcomes(run_id, list(batch.values()))
        for pair, outcome in batch.items():
            if outcome.error is None:
                history = newest.setdefault(pair, [])
                history[:] = [entry for entry in history if entry[0] != run_id]
                history.append((run_id, outcome))
    standing = {pair: [outcome for run, outcome in history if run not in rolled_back] for pair, history in newest.items()}
    expected = [outcomes[-1] for outcomes in standing.values() if outcomes]

    assert sorted(await profiles.outcomes(), key=repr) == sorted(expected, key=repr)
    assert await profiles.profiles() == to_profiles(tally(await profiles.outcomes()))


async def test_aggregator_profiles_are_set_per_expert(profiles: ProfileStore) -> None:
    await profiles.set_aggregator_outcomes(
        [AggregatorOutcome("generalist", "q1", "x", correct=True), AggregatorOutcome("numerals", "q1", "x", correct=True)]
    )
    outcomes = [
        AggregatorOutcome("numerals", "q1", "x", correct=True, answer="14"),
        AggregatorOutcome("numerals", "q2", "x", correct=False),
        AggregatorOutcome("numerals", "q3", None, correct=True),
        AggregatorOutcome("numerals", "q4", "x", error="expert_timeout: slow"),
    ]
    await profiles.set_aggregator_outcomes(outcomes)

    assert await profiles.aggregator_profiles() == {
        "generalist": AggregatorProfile("generalist", {"x": SkillCount(1, 1)}, SkillCount(1, 1)),
        "numerals": AggregatorProfile("numerals", {"x": SkillCount(2, 1)}, SkillCount(3, 2)),
    }
    fingerprint = make_card("numerals").aggregator_fingerprint
    kept = [replace(outcome, expert_fingerprint=fingerprint) for outcome in outcomes]
    assert [outcome for outcome in await profiles.aggregator_outcomes() if outcome.expert_id == "numerals"] == kept
