"""The registry in memory follows the database, its own process's changes and others'."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from domain.errors import NotReady
from domain.evaluation import AggregatorOutcome
from domain.experts import HealthState
from domain.registry import RegistrySnapshot
from domain.skills import SkillCount
from domain.strategy import Strategy
from experts_registry.database import Database
from experts_registry.directory import RegistryDirectory
from experts_registry.skills import Skill
from experts_registry.stores import Stores
from orchestrator.ports import Directory
from tests.fakes.registry import make_card, make_failure, make_outcome, make_question, said_in_log

SOON_S = 20.0
"""Longest wait for what happens within milliseconds on an idle machine."""


@pytest.fixture(name="directory")
async def _directory(database: Database) -> AsyncIterator[RegistryDirectory]:
    directory = RegistryDirectory(database, poll_interval_s=0.01)
    await directory.start()
    yield directory
    await directory.close()


async def _next_snapshot(directory: RegistryDirectory) -> RegistrySnapshot:
    arrived: asyncio.Future[RegistrySnapshot] = asyncio.get_running_loop().create_future()
    unsubscribe = directory.subscribe(lambda snapshot: None if arrived.done() else arrived.set_result(snapshot))
    async with asyncio.timeout(SOON_S):
        snapshot = await arrived
    unsubscribe()
    return snapshot


async def test_a_snapshot_holds_everything_that_routing_needs(stores: Stores, directory: RegistryDirectory) -> None:
    await stores.questions.add([make_question()], source="test")
    card = await stores.experts.create(make_card(skills=("roman numerals",)))
    strategy = await stores.strategies.create(Strategy("auto"))
    await stores.skills.create(Skill("algebra", "x"))
    run_id = await stores.profiles.create_run(["numerals"], ["q1"])
    await stores.profiles.record_outcomes(run_id, [make_outcome(skills=("digits",))])
    await stores.profiles.set_aggregator_outcomes([AggregatorOutcome("numerals", "q1", "x", correct=True)])

    snapshot = await directory.refresh()

    assert (snapshot.version, snapshot.questions_version) == (6, 1)
    assert snapshot.experts == {"numerals": card}
    assert snapshot.strategies == {"auto": strategy}
    assert snapshot.skills == {"algebra": "x", "digits": "", "roman numerals": ""}
    assert snapshot.profiles["numerals"].by_skill == {"digits": SkillCount(1, 1)}
    assert snapshot.aggregator_profiles["numerals"].overall == SkillCount(1, 1)


async def test_the_directory_is_what_the_orchestrator_wants(directory: RegistryDirectory) -> None:
    port: Directory = directory

    assert port.snapshot() is port.snapshot()


async def test_a_change_of_this_process_is_live_when_refresh_returns(stores: Stores, database: Database) -> None:
    directory = RegistryDirectory(database, poll_interval_s=3600)
    await directory.start()
    await stores.experts.create(make_card())
    await directory.refresh()
    await directory.close()

    assert directory.snapshot().experts == {"numerals": make_card()}


async def test_a_change_of_another_process_is_seen_by_itself(directory: RegistryDirectory, other_process: Database) -> None:
    waiting = asyncio.create_task(_next_snapshot(directory))
    await asyncio.sleep(0)
    await Stores.of(other_process).experts.create(make_card())

    assert (await waiting).experts == {"numerals": make_card()}
    assert directory.snapshot().experts == {"numerals": make_card()}


async def test_without_a_change_the_snapshot_stays_the_same_object(stores: Stores, directory: RegistryDirectory) -> None:
    await stores.experts.create(make_card())
    first = await directory.refresh()

    assert await directory.refresh() is first


async def test_a_snapshot_that_a_request_holds_never_changes(stores: Stores, directory: RegistryDirectory) -> None:
    await stores.experts.create(make_card())
    held = await directory.refresh()
    await stores.experts.delete("numerals")
    await directory.refresh()

    assert set(held.experts) == {"numerals"}
    assert directory.snapshot().experts == {}


async def test_what_was_measured_of_a_deleted_expert_takes_no_part(stores: Stores, directory: RegistryDirectory) -> None:
    await stores.questions.add([make_question()], source="test")
    await stores.experts.create(make_card())
    await stores.profiles.record_outcomes(await stores.profiles.create_run(["numerals"], ["q1"]), [make_outcome()])
    await stores.experts.delete("numerals")
    gone = await directory.refresh()
    await stores.experts.create(make_card())
    back = await directory.refresh()

    assert gone.profiles == {}
    assert set(back.profiles) == {"numerals"}


async def test_a_subscriber_that_fails_keeps_nobody_else_from_seeing(
    stores: Stores, directory: RegistryDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def fail(_snapshot: RegistrySnapshot) -> None:
        raise ZeroDivisionError

    directory.subscribe(fail)
    unsubscribe = directory.subscribe(lambda snapshot: seen.append(snapshot.version))
    await stores.experts.create(make_card())
    await directory.refresh()
    unsubscribe()
    await stores.experts.delete("numerals")
    await directory.refresh()

    assert seen == [1]
    assert "a subscriber of the registry failed" in caplog.text


async def test_the_last_snapshot_serves_while_the_database_cannot_be_read(
    stores: Stores, directory: RegistryDirectory, database: Database
) -> None:
    """And the first look that works again ends it."""
    await stores.experts.create(make_card())
    await directory.refresh()
    with said_in_log("experts_registry.directory", "requests go on with what is known") as said:
        async with database.session() as connection:
            await connection.execute(sa.text("ALTER TABLE registry_state RENAME TO mislaid"))
        async with asyncio.timeout(SOON_S):
            await said.wait()
    try:
        with pytest.raises(NotReady):
            await directory.refresh()
        assert isinstance(directory.storage_error, NotReady)
        assert set(directory.snapshot().experts) == {"numerals"}
    finally:
        async with database.session() as connection:
            await connection.execute(sa.text("ALTER TABLE mislaid RENAME TO registry_state"))

    await directory.refresh()
    assert directory.storage_error is None


async def test_an_expert_that_was_changed_gets_a_new_chance(stores: Stores, directory: RegistryDirectory) -> None:
    """Its steward may just have corrected the address."""
    await stores.experts.create(make_card("a"))
    await stores.experts.create(make_card("b"))
    snapshot = await directory.refresh()
    for failure in [make_failure("a")] * 3 + [make_failure("b")] * 3:
        directory.record(failure)
    assert {directory.health_of("a"), directory.health_of("b")} == {HealthState.OPEN}
    await stores.experts.replace(replace(snapshot.experts["a"], base_url=None, description="mended"))
    await directory.refresh()

    assert directory.health_of("a") is HealthState.CLOSED
    assert directory.health_of("b") is HealthState.OPEN
    assert directory.begin_call("a")
    assert not directory.begin_call("b")


async def _outsider(database: Database) -> RegistryDirectory:
    """One that sees changes only when it is asked to look."""
    directory = RegistryDirectory(database, poll_interval_s=3_600)
    await directory.start()
    return directory


async def test_a_look_that_is_asked_for_sees_what_was_committed_before(database: Database, stores: Stores) -> None:
    directory = await _outsider(database)
    for number in range(3):
        await stores.experts.create(make_card(f"expert-{number}"))
        assert f"expert-{number}" not in directory.snapshot().experts
        await directory.look_again()
        assert f"expert-{number}" in directory.snapshot().experts
    await directory.close()


async def test_those_who_ask_at_the_same_time_share_a_look(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, num_looks = await _outsider(database), 0
    refresh = directory.refresh

    async def counted() -> RegistrySnapshot:
        nonlocal num_looks
        num_looks += 1
        return await refresh()

    monkeypatch.setattr(directory, "refresh", counted)
    async with asyncio.timeout(SOON_S):
        await asyncio.gather(*(directory.look_again() for _ in range(100)))
        assert num_looks == 1
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            await directory.look_again()
    assert num_looks == 4
    assert asyncio.get_running_loop().time() - began > 0.5, "one after the other without a pause"
    await directory.close()


async def test_a_look_at_a_database_that_is_gone_changes_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = await _outsider(database)
    before = directory.snapshot()

    for fault in (NotReady("the database is gone"), KeyError("a fault of ours")):

        async def gone(fault: Exception = fault) -> RegistrySnapshot:
            raise fault

        monkeypatch.setattr(directory, "refresh", gone)
        await directory.look_again()

    assert directory.snapshot() is before
    await directory.close()


async def test_whoever_gives_up_waiting_for_a_look_takes_it_from_nobody(database: Database) -> None:
    directory = await _outsider(database)
    await directory.look_again()  # the next one is a moment away
    waiting = [asyncio.ensure_future(directory.look_again()) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    async with asyncio.timeout(SOON_S):
        await waiting[1]
        assert waiting[0].cancelled()
    last = asyncio.ensure_future(directory.look_again())
    await asyncio.sleep(0)
    await directory.close()
    async with asyncio.timeout(SOON_S):
        await last
        await directory.start()
        await directory.look_again()  # and not the one that was given up
    await directory.close()


async def test_while_a_look_hangs_one_more_waits_however_many_ask(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, go_on, num_looks = await _outsider(database), asyncio.Event(), 0
    refresh = directory.refresh

    async def slow() -> RegistrySnapshot:
        nonlocal num_looks
        num_looks += 1
        await go_on.wait()
        return await refresh()

    monkeypatch.setattr(directory, "refresh", slow)
    waiting = []
    for _ in range(5):
        waiting += [asyncio.ensure_future(directory.look_again()) for _ in range(20)]
        await asyncio.sleep(0.25)
    go_on.set()
    async with asyncio.timeout(SOON_S):
        await asyncio.gather(*waiting)

    assert num_looks == 2
    await directory.close()
