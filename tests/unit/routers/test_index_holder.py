"""How the index follows the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from domain.errors import NotReady, StorageError
from domain.skills import LabelledQuestion
from routers.index_holder import IndexHolder
from tests.fakes.encoder import HashingEncoder
from tests.fakes.routing import card, labelled, snapshot_of


class Store:
    """Labelled questions and their vectors, with a count of what was read."""

    def __init__(self) -> None:
        self.questions = labelled()
        self.saved: dict[str, bytes] = {}
        self.num_loads = 0
        self.full = False

    async def load(self) -> Sequence[LabelledQuestion]:
        self.num_loads += 1
        return self.questions

    async def vectors(self, encoder_id: str) -> Mapping[str, bytes]:
        assert encoder_id == "hashing-64"
        return self.saved

    async def save(self, encoder_id: str, made: Mapping[str, bytes]) -> None:
        if self.full:
            raise StorageError("the disk is full")
        self.saved = {**self.saved, **made}

    async def refresh(self, holder: IndexHolder, **fields: object) -> bool:
        snapshot = replace(snapshot_of(), **fields)  # type: ignore[arg-type]
        return await holder.refresh(snapshot, self.load, self.vectors, self.save)


def test_without_an_index_routing_is_not_ready() -> None:
    with pytest.raises(NotReady):
        IndexHolder(HashingEncoder()).index()


async def test_the_first_refresh_builds_and_stores_the_vectors() -> None:
    store, holder = Store(), IndexHolder(HashingEncoder())

    assert await store.refresh(holder)
    assert holder.index().skills == ("addition", "multiplication", "capitals", "reversing")
    assert len(store.saved) == 16


async def test_a_change_of_profiles_alone_keeps_the_index() -> None:
    store, holder = Store(), IndexHolder(HashingEncoder())
    await store.refresh(holder)
    before = holder.index()

    assert not await store.refresh(holder, version=2, profiles={})
    assert holder.index() is before
    assert store.num_loads == 1


async def test_a_new_card_changes_what_is_declared_and_reads_no_questions() -> None:
    store, holder = Store(), IndexHolder(HashingEncoder())
    await store.refresh(holder)
    before = holder.index()

    assert await store.refresh(holder, version=2, experts={"cook": card("cook", skills=("cooking",))})
    assert holder.index().skills[-1] == "cooking"
    assert holder.index().questions is before.questions
    assert store.num_loads == 1


async def test_new_questions_are_read_and_only_they_are_encoded() -> None:
    store, encoder = Store(), HashingEncoder()
    holder = IndexHolder(encoder)
    await store.refresh(holder)
    store.questions.append(LabelledQuestion("new", "How long do I boil rice?", "", "home", ("cooking",)))
    encoder.batches.clear()

    assert await store.refresh(holder, version=2, questions_version=2)
    assert "cooking" in holder.index().questions.skills
    assert encoder.batches[0] == ("How long do I boil rice?",)


async def test_who_waits_for_a_version_goes_on_when_the_index_has_it() -> None:
    store, holder = Store(), IndexHolder(HashingEncoder())
    waiting = asyncio.create_task(holder.follows(5))
    for version in (3, 4):
        await store.refresh(holder, version=version)
        await asyncio.sleep(0)
        assert not waiting.done()
    await store.refresh(holder, version=6)
    async with asyncio.timeout(5):
        await waiting
        await holder.follows(2)


async def test_an_older_snapshot_is_ignored() -> None:
    store, holder = Store(), IndexHolder(HashingEncoder())
    await store.refresh(holder, version=5)

    assert not await store.refresh(holder, version=4, questions_version=9)
    assert store.num_loads == 1


async def test_a_full_disk_does_not_stop_routing() -> None:
    store, holder = Store(), IndexHolder(HashingEncoder())
    store.full = True

    assert await store.refresh(holder)
    assert holder.index().skills


async def test_when_questions_cannot_be_read_the_old_index_stays() -> None:
    store, holder = Store(), IndexHolder(HashingEncoder())
    await store.refresh(holder)
    before = holder.index()

    async def broken() -> Sequence[LabelledQuestion]:
        raise StorageError("the database is locked")

    store.load = broken  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        await store.refresh(holder, version=2, questions_version=2)

    assert holder.index() is before
