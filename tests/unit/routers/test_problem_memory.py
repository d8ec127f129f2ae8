"""The solved problems in memory: read behind the requests' backs, each tenant's own, bounded, and gone when they are deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from domain.errors import NotReady, Overloaded, StorageError
from domain.memory import SolvedProblem
from routers.problem_memory import MemoryLimits, ProblemMemory
from tests.fakes.encoder import HashingEncoder, Vectors

ASKED = "A train covers 240 km in 4 hours. How fast is it?"


class Source:
    """A ``ProblemSource`` in memory; *gate* holds reading up."""

    def __init__(self) -> None:
        self.problems: dict[str, SolvedProblem] = {}
        self.versions: dict[str, int] = {}
        self.read: list[str] = []
        self.moments: dict[str, float] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: StorageError | None = None

    def keep(self, tenant: str, question: str = "A train covers 180 km in 3 hours. How fast is it?") -> str:
        problem_id = f"mem-{len(self.problems) + 1}"
        self.problems[problem_id] = SolvedProblem(problem_id, tenant, question, "60 km/h", "import", 1.0, sequence=len(self.problems) + 1)
        self.touch(tenant)
        return problem_id

    def touch(self, tenant: str) -> None:
        version = max(self.versions.values(), default=0) + 1
        self.versions.pop(tenant, None)
        self.versions[tenant] = version

    async def changes(self, since: int) -> tuple[int, Sequence[str]]:
        if self.error is not None:
            raise self.error
        return max(self.versions.values(), default=0), [tenant for tenant, version in self.versions.items() if version > since]

    async def of_tenant(self, tenant: str) -> Sequence[SolvedProblem]:
        self.read.append(tenant)
        await self.gate.wait()
        return [problem for problem in self.problems.values() if problem.tenant == tenant]

    async def save_vectors(self, encoder_id: str, vectors: Mapping[str, bytes]) -> None:
        for problem_id, vector in vectors.items():
            self.problems[problem_id] = replace(self.problems[problem_id], encoder_id=encoder_id, vector=vector)

    async def used(self, moments: Mapping[str, float]) -> None:
        self.moments.update(moments)


async def shown(memory: ProblemMemory, tenant: str, question: str = ASKED) -> list[str]:
    return [one.problem_id for one in await memory.recall(tenant, question, limit=5, min_similarity=0.4)]


async def test_a_tenant_is_shown_its_own_problems_and_never_anothers() -> None:
    source = Source()
    mine, theirs = source.keep("a"), source.keep("b")
    memory = ProblemMemory(source, HashingEncoder())
    await memory.follow()

    assert await shown(memory, "a") == [mine]
    assert await shown(memory, "b") == [theirs]
    assert await shown(memory, "c") == []


async def test_requests_read_nothing_once_it_follows() -> None:
    source = Source()
    source.keep("a")
    memory = ProblemMemory(source, HashingEncoder())
    await memory.follow()
    before = list(source.read)
    for _ in range(3):
        await shown(memory, "a")
        await shown(memory, "nobody")
    await memory.follow()

    assert source.read == before == ["a"]


async def test_what_is_deleted_is_not_shown_after_the_next_look() -> None:
    source = Source()
    problem_id = source.keep("a")
    memory = ProblemMemory(source, HashingEncoder())
    await memory.follow()
    assert await shown(memory, "a") == [problem_id]
    del source.problems[problem_id]
    source.touch("a")
    await memory.follow()

    assert await shown(memory, "a") == []


async def test_vectors_are_made_once_and_kept_where_the_encoder_is_the_same() -> None:
    source = Source()
    source.keep("a")
    first, again, other = HashingEncoder(), HashingEncoder(), HashingEncoder(32)
    for encoder in (first, again, other):
        memory = ProblemMemory(source, encoder)
        await memory.follow()
        assert await shown(memory, "a") == ["mem-1"]

    assert [len(encoder.batches) for encoder in (first, again, other)] == [2, 1, 2], "the question is always encoded"


async def test_what_cannot_be_encoded_now_is_found_later() -> None:
    class Busy(HashingEncoder):
        error: Overloaded | None = Overloaded("busy")

        async def encode(self, texts: Sequence[str]) -> Vectors:
            if self.error is not None:
                raise self.error
            return await super().encode(texts)

    source, encoder = Source(), Busy()
    source.keep("a")
    memory = ProblemMemory(source, encoder)
    await memory.follow()
    assert await shown(memory, "a") == []
    encoder.error = None
    await memory.follow()

    assert await shown(memory, "a") == ["mem-1"]


async def test_only_so_many_tenants_are_held_and_another_one_is_read_when_it_asks() -> None:
    source = Source()
    for tenant in ("a", "b", "c"):
        source.keep(tenant)
    memory = ProblemMemory(source, HashingEncoder(), limits=MemoryLimits(max_tenants=2))
    await memory.follow()
    assert sorted(source.read) == ["b", "c"], "those that changed last"

    assert await shown(memory, "a") == ["mem-1"]
    assert memory.num_problems == 2


async def test_only_so_many_problems_are_held_whatever_the_number_of_tenants() -> None:
    source = Source()
    for number in range(6):
        source.keep("abc"[number % 3], f"A train covers {number} km in 3 hours. How fast is it?")
    memory = ProblemMemory(source, HashingEncoder(), limits=MemoryLimits(max_held=4))
    await memory.follow()

    assert memory.num_problems == 4
    for tenant in "abc":
        assert len(await shown(memory, tenant)) == 2, "another one is read when it asks"
        assert memory.num_problems == 4


async def test_requests_that_ask_for_the_same_problems_wait_for_one_reading() -> None:
    """A database that hangs is not asked once more by every request that has given up."""
    source = Source()
    for tenant in ("a", "b"):
        source.keep(tenant)
    memory = ProblemMemory(source, HashingEncoder(), limits=MemoryLimits(max_tenants=1, load_wait_s=0.01))
    await memory.follow()
    source.gate.clear()
    before = len(asyncio.all_tasks())
    given_up = await asyncio.gather(*(shown(memory, "a") for _ in range(20)), return_exceptions=True)

    assert {type(error) for error in given_up} == {NotReady}
    assert len(asyncio.all_tasks()) == before + 1
    source.gate.set()
    await memory.follow()
    assert source.read.count("a") == 1


async def test_a_reading_that_failed_is_tried_again_by_the_next_request() -> None:
    class Failing(Source):
        fails = False

        async def of_tenant(self, tenant: str) -> Sequence[SolvedProblem]:
            if self.fails:
                raise StorageError("gone")
            return await super().of_tenant(tenant)

    source = Failing()
    for tenant in ("a", "b"):
        source.keep(tenant)
    memory = ProblemMemory(source, HashingEncoder(), limits=MemoryLimits(max_tenants=1))
    await memory.follow()
    source.fails = True
    with pytest.raises(StorageError):
        await shown(memory, "a")
    source.fails = False

    assert await shown(memory, "a") == ["mem-1"]


async def test_a_request_does_not_wait_long_for_problems_that_are_being_read() -> None:
    source = Source()
    for tenant in ("a", "b"):
        source.keep(tenant)
    memory = ProblemMemory(source, HashingEncoder(), limits=MemoryLimits(max_tenants=1, load_wait_s=0.01))
    await memory.follow()
    source.gate.clear()
    with pytest.raises(NotReady, match="still being read"):
        await shown(memory, "a")
    source.gate.set()
    await memory.follow()

    assert await shown(memory, "a") == ["mem-1"], "it was read to its end all the same"


async def test_before_the_first_look_nobody_is_told_that_there_is_nothing() -> None:
    source = Source()
    source.keep("a")
    late = ProblemMemory(source, HashingEncoder(), limits=MemoryLimits(load_wait_s=0.01))
    with pytest.raises(NotReady, match="not read yet"):
        await shown(late, "a")
    soon = ProblemMemory(source, HashingEncoder())
    asking = asyncio.ensure_future(shown(soon, "a"))
    await soon.follow()

    assert await asking == ["mem-1"]


async def test_what_was_shown_is_told_to_the_store_with_the_next_look() -> None:
    source = Source()
    source.keep("a")
    memory = ProblemMemory(source, HashingEncoder(), now=lambda: 42.0)
    await memory.follow()
    await shown(memory, "a")
    assert source.moments == {}
    await memory.follow()

    assert source.moments == {"mem-1": 42.0}


async def test_while_the_database_is_gone_requests_go_on_with_what_is_known() -> None:
    source = Source()
    source.keep("a")
    memory = ProblemMemory(source, HashingEncoder())
    await memory.follow()
    source.error = StorageError("gone")
    with pytest.raises(StorageError):
        await memory.follow()

    assert await shown(memory, "a") == ["mem-1"]
