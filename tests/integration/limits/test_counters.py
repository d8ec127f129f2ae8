"""Limits are counted the same in one process and, by Redis, in many."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from redis.exceptions import TimeoutError as RedisTimeout

from benchmarks.redis_server import RedisServer
from domain.errors import NotReady, StorageError
from domain.keys import KeyLimits
from domain.limiting import SLOT_S, WINDOW_S, Kind, Rule, Unit, Verdict
from domain.spending import Spent, nano_usd
from experts_registry.redis_limits import RedisCounters
from orchestrator.admission.in_process import InProcessCounters
from orchestrator.admission.ports import Counters
from orchestrator.admission.rules import rules_of
from tests.fakes.limits import MemoryLedger

NOON = 1_795_608_000.0
"""2026-11-25, 12:00 UTC."""
TODAY = "2026-11-25"


@dataclass
class Replicas:
    """Two replicas as a service has them: with Redis two processes' counters, else one process's twice."""

    both: tuple[Counters, Counters]
    ledger: MemoryLedger
    key: str
    num_leases: int = 0

    async def take(self, limits: KeyLimits, tokens: int = 0, nano: int = 0, *, at: int = 0) -> tuple[Verdict, Callable[[Spent], None]]:
        rules, lease = rules_of(limits, Spent(tokens, nano), NOON), uuid.uuid4().hex
        verdict = await self.both[at].take(self.key, lease, rules)

        def settle(spent: Spent) -> None:
            def cost(rule: Rule) -> int:
                return 1 if rule.unit is Unit.REQUESTS else spent.tokens if rule.unit is Unit.TOKENS else spent.nano_usd

            for period in {rule.period for rule in rules if rule.kind is Kind.BUDGET}:
                self.ledger.add(self.key, period, spent)
            self.both[at].settle(self.key, lease, rules, [cost(rule) for rule in rules], verdict.slot)

        return verdict, settle

    async def settled(self) -> None:
        """Return when settlements are told."""
        for counters in self.both:
            if isinstance(counters, RedisCounters):
                while counters.num_untold:
                    await asyncio.sleep(0.005)


@pytest.fixture(params=["in process", "redis"])
async def replicas(request: pytest.FixtureRequest) -> AsyncIterator[Replicas]:
    ledger, key = MemoryLedger(), f"key-{uuid.uuid4().hex[:8]}"
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        first, second = RedisCounters(server.url, ledger.load), RedisCounters(server.url, ledger.load)
        yield Replicas((first, second), ledger, key)
        await first.close()
        await second.close()
    else:
        alone = InProcessCounters(ledger)
        yield Replicas((alone, alone), ledger, key)


async def test_requests_that_cost_nothing_overlap_under_a_budget(replicas: Replicas) -> None:
    """Experts without a price, under a budget of dollars."""
    limits = KeyLimits(usd_per_day=1.0)
    _, settle_first = await replicas.take(limits)
    _, settle_second = await replicas.take(limits)
    settle_first(Spent())
    settle_second(Spent())
    await replicas.settled()

    verdict, _ = await replicas.take(limits)
    assert verdict.refused_by is None
    assert verdict.left == (nano_usd(1.0),)


async def test_no_minute_has_more_requests_than_the_limit(replicas: Replicas) -> None:
    limits = KeyLimits(requests_per_minute=5)
    verdicts = [(await replicas.take(limits, at=number % 2))[0] for number in range(7)]

    assert [verdict.refused_by for verdict in verdicts] == [None] * 5 + [0, 0]
    assert [verdict.left[0] for verdict in verdicts] == [4, 3, 2, 1, 0, 0, 0]
    assert WINDOW_S - 1 < verdicts[-1].retry_after_s <= WINDOW_S + SLOT_S
    assert WINDOW_S - 1 < verdicts[0].reset_s[0] <= WINDOW_S + SLOT_S


async def test_tokens_are_taken_as_estimated_and_settled_as_used(replicas: Replicas) -> None:
    limits = KeyLimits(tokens_per_minute=100)
    first, settle = await replicas.take(limits, 80)
    refused, _ = await replicas.take(limits, 30, at=1)
    settle(Spent(50))
    await replicas.settled()
    second, settle_second = await replicas.take(limits, 50, at=1)
    settle_second(Spent(70))
    await replicas.settled()
    third, _ = await replicas.take(limits, 1)

    assert (first.refused_by, refused.refused_by, second.refused_by, third.refused_by) == (None, 0, None, 0)
    assert (refused.left, second.left, third.left) == ((20,), (0,), (-20,))


async def test_a_refused_request_takes_nothing_of_any_limit(replicas: Replicas) -> None:
    limits = KeyLimits(requests_per_minute=10, tokens_per_minute=100, max_concurrency=5, tokens_per_day=1000)
    for _ in range(20):
        verdict, _ = await replicas.take(limits, 101)
        assert verdict.refused_by == 2
    allowed, _ = await replicas.take(limits, 100)

    assert allowed.refused_by is None
    assert allowed.left == (4, 9, 0, 900)


async def test_so_many_at_once_and_no_more(replicas: Replicas) -> None:
    limits = KeyLimits(max_concurrency=2)
    _, end_first = await replicas.take(limits)
    await replicas.take(limits, at=1)
    refused, _ = await replicas.take(limits, at=1)
    end_first(Spent())
    await replicas.settled()
    allowed, _ = await replicas.take(limits, at=1)

    assert (refused.refused_by, allowed.refused_by) == (0, None)


async def test_a_budget_counts_what_was_spent_before(replicas: Replicas) -> None:
    """By a process that is gone, or before Redis lost what it held: the database knows."""
    replicas.ledger.add(replicas.key, TODAY, Spent(900, nano_usd(0.5)))
    replicas.ledger.add(replicas.key, TODAY[:7], Spent(5000, nano_usd(3)))
    limits = KeyLimits(tokens_per_day=1000, usd_per_month=4.0)

    verdict, settle = await replicas.take(limits, 60, nano_usd(0.4))
    settle(Spent(10, nano_usd(0.1)))
    await replicas.settled()
    after, _ = await replicas.take(limits, 90, nano_usd(0.9))
    none_left, _ = await replicas.take(limits, 1, 1)

    assert verdict.left == (40, nano_usd(0.6))
    assert (after.refused_by, after.left) == (None, (0, 0))
    assert none_left.refused_by == 0


async def test_many_at_once_get_all_of_the_limit_and_no_more(replicas: Replicas) -> None:
    limits = KeyLimits(requests_per_minute=150, tokens_per_minute=1005, tokens_per_day=100_000)
    verdicts = await asyncio.gather(*(replicas.take(limits, 10, at=number % 2) for number in range(300)))

    assert sum(verdict.refused_by is None for verdict, _ in verdicts) == 100


async def test_settling_twice_counts_once(redis: RedisServer) -> None:
    """A settlement whose answer was lost is told to Redis again."""
    counters, rules = RedisCounters(redis.url, MemoryLedger().load), rules_of(KeyLimits(tokens_per_minute=100), Spent(80), NOON)
    verdict = await counters.take("twice", "lease", rules)
    for _ in range(2):
        counters.settle("twice", "lease", rules, [30], verdict.slot)
    while counters.num_untold:
        await asyncio.sleep(0.005)
    after = await counters.take("twice", "another", rules)
    await counters.close()

    assert (after.refused_by, after.left) == (0, (70,))


@pytest.mark.parametrize("used", [90, 30])
async def test_an_answer_that_outlasts_the_window_is_charged_what_it_took_too_little(redis: RedisServer, used: int) -> None:
    """Nobody else asked meanwhile, so that Redis has forgotten the whole window. What was taken too much is not given twice."""
    counters, rules = RedisCounters(redis.url, MemoryLedger().load), rules_of(KeyLimits(tokens_per_minute=100), Spent(50), NOON)
    key = f"key-{uuid.uuid4().hex[:8]}"
    verdict = await counters.take(key, "long", rules)
    assert await counters._redis.delete(*counters._names(key, rules)) == 1  # as its expiry does
    counters.settle(key, "long", rules, [used], verdict.slot)
    await told(counters)
    after = await counters.take(key, "next", rules)
    await counters.close()

    assert (after.refused_by, after.left) == (None, (100 - max(0, used - 50) - 50,))
    assert WINDOW_S - 1 < after.reset_s[0] <= WINDOW_S + SLOT_S


@pytest.mark.parametrize("how", ["cancelled", "no answer"])
@pytest.mark.parametrize("has_run", [True, False])
async def test_what_was_taken_without_anybody_hearing_of_it_is_given_back(redis: RedisServer, how: str, has_run: bool) -> None:
    """Of a client that left meanwhile, or after a time-out; also where Redis comes to it only after it was given up."""
    limits = KeyLimits(requests_per_minute=10, tokens_per_minute=100, max_concurrency=2, tokens_per_day=1000)
    ledger, key, rules = MemoryLedger(), f"key-{uuid.uuid4().hex[:8]}", rules_of(limits, Spent(60), NOON)
    counters, other = RedisCounters(redis.url, ledger.load), RedisCounters(redis.url, ledger.load)
    take, ran = counters._take, asyncio.Event()
    late: list[dict[str, object]] = []

    async def unheard(**asked: object) -> object:
        if has_run:
            assert (await take(**asked))[0] == 0  # the budget was loaded by the other
        else:
            late.append(asked)
        ran.set()
        if how == "cancelled":
            await asyncio.Event().wait()
        raise RedisTimeout("no answer")

    first = await other.take(key, "first", rules)
    monkey = pytest.MonkeyPatch()
    monkey.setattr(counters, "_take", unheard)
    asking = asyncio.create_task(counters.take(key, "lost", rules_of(limits, Spent(30), NOON)))
    async with asyncio.timeout(30):
        await ran.wait()
        if how == "cancelled":
            asking.cancel()
        with pytest.raises(asyncio.CancelledError if how == "cancelled" else NotReady):
            await asking
        while counters.num_untold:
            await asyncio.sleep(0.005)
        for asked in late:
            assert await take(**asked) == [-2]
        second = await other.take(key, "second", rules_of(limits, Spent(40), NOON))
    monkey.undo()
    await counters.close()
    await other.close()

    assert (first.refused_by, second.refused_by) == (None, None)
    left = dict(zip([(rule.kind, rule.unit) for rule in rules], second.left, strict=True))
    assert left[Kind.CONCURRENCY, Unit.REQUESTS] == 0
    assert left[Kind.WINDOW, Unit.REQUESTS] == 8
    assert left[Kind.WINDOW, Unit.TOKENS] == 0
    assert left[Kind.BUDGET, Unit.TOKENS] == 900


def asked(tokens: int, limit: int = 100) -> list[Rule]:
    """Of a day's tokens."""
    return list(rules_of(KeyLimits(tokens_per_day=limit), Spent(tokens), NOON))


async def budget_of(counters: RedisCounters, key: str) -> str:
    """Its name in Redis."""
    (name,) = [name async for name in counters._redis.scan_iter(f"*{key}*:budget:*") if not name.endswith(":held")]
    return str(name)


async def told(*replicas: RedisCounters) -> None:
    """Return when every settlement is."""
    async with asyncio.timeout(30):
        while any(counters.num_untold for counters in replicas):
            await asyncio.sleep(0.005)


async def due(counters: RedisCounters, key: str, tokens: int) -> Verdict:
    """An hour later: the next request, when what it has set off is over."""
    await counters._redis.hset(await budget_of(counters, key), "read", 0)
    verdict = await counters.take(key, uuid.uuid4().hex, asked(tokens))
    async with asyncio.timeout(30):
        while counters._rereading:
            await asyncio.sleep(0.005)
    return verdict


async def test_what_a_killed_replica_had_taken_is_free_when_it_was_not_heard_for_long(redis: RedisServer) -> None:
    """Its leases run out; those of requests that others run are told again before they do."""
    ledger, key = MemoryLedger(), f"key-{uuid.uuid4().hex[:8]}"
    killed, alive = RedisCounters(redis.url, ledger.load), RedisCounters(redis.url, ledger.load)
    await killed.take(key, "killed", asked(30))
    running = await alive.take(key, "running", asked(40))
    refused = await alive.take(key, "refused", asked(31))
    name = await budget_of(alive, key)
    for lease in ("killed:30", "running:40"):  # a minute passes, in which only the living are heard
        await alive._redis.zadd(f"{name}:held", {lease: 1.0})
    await alive._renew_some(key, alive._running[key])
    again = await alive.take(key, "again", asked(10))
    alive.settle(key, "running", asked(40), [25], running.slot)
    alive.settle(key, "again", asked(10), [10], again.slot)
    await told(alive)
    last = await alive.take(key, "last", asked(1))
    await killed.close()
    await alive.close()

    assert (running.left, refused.refused_by) == ((30,), 0)
    assert (again.left, last.left) == ((50,), (100 - 10 - 25 - 1,))


async def test_what_runs_is_counted_on_when_a_budget_is_read_again(redis: RedisServer) -> None:
    """After an hour, while requests of two replicas run and one has ended that the database does not know of yet."""
    ledger, key = MemoryLedger(), f"key-{uuid.uuid4().hex[:8]}"
    first, second = RedisCounters(redis.url, ledger.load), RedisCounters(redis.url, ledger.load)
    await first.take(key, "one", asked(30))
    other = await second.take(key, "two", asked(40))
    ended = await second.take(key, "three", asked(10))
    second.settle(key, "three", asked(10), [5], ended.slot)
    await told(second)

    before = await due(first, key, 20)
    after = await first.take(key, "more", asked(6))
    ledger.add(key, TODAY, Spent(5))
    second.settle(key, "two", asked(40), [40], other.slot)
    await told(second)
    last = await first.take(key, "last", asked(5))
    too_much = await first.take(key, "too much", asked(1))
    await first.close()
    await second.close()

    assert before.left == (100 - 30 - 40 - 5 - 20,)
    assert (after.refused_by, after.left) == (0, (5,))
    assert (last.refused_by, last.left, too_much.refused_by) == (None, (0,), 0)


async def test_a_budget_that_redis_knows_too_little_of_is_set_right_when_it_is_read_again(redis: RedisServer) -> None:
    """It came back with an old state. Where it knows more than the database, which is told later, it is believed."""
    ledger, key = MemoryLedger(), f"key-{uuid.uuid4().hex[:8]}"
    counters = RedisCounters(redis.url, ledger.load)
    await counters.take(key, "runs", asked(10))
    ledger.add(key, TODAY, Spent(60))
    first = await due(counters, key, 1)
    known = await counters.take(key, "known", asked(1))
    ledger.totals.clear()
    await due(counters, key, 1)
    still = await counters.take(key, "still", asked(1))
    await counters.close()

    assert (first.left, known.left, still.left) == ((89,), (100 - 60 - 10 - 1 - 1,), (100 - 60 - 10 - 4,))


async def test_a_database_that_is_away_costs_no_request_when_a_budget_is_due(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    ledger, key, is_away = MemoryLedger(), f"key-{uuid.uuid4().hex[:8]}", False

    async def load(key_id: str, period: str) -> Spent:
        if is_away:
            raise StorageError("the database is away")
        return await ledger.load(key_id, period)

    counters = RedisCounters(redis.url, load)
    await counters.take(key, "runs", asked(10))
    is_away = True
    verdict = await due(counters, key, 20)
    next_one = await counters.take(key, "next", asked(70))
    await counters.close()

    assert (verdict.left, next_one.left) == ((70,), (0,))
    assert "a budget cannot be compared with the database: StorageError" in caplog.text


async def test_what_runs_is_held_again_after_redis_has_lost_everything(redis: RedisServer) -> None:
    """As soon as its replica tells that it still runs; and what it cost is counted once when it ends, whatever Redis knew meanwhile."""
    ledger, key = MemoryLedger(), f"key-{uuid.uuid4().hex[:8]}"
    limits = KeyLimits(tokens_per_day=100, max_concurrency=2)
    counters = RedisCounters(redis.url, ledger.load)

    def both(tokens: int) -> list[Rule]:
        return list(rules_of(limits, Spent(tokens), NOON))

    told_again = await counters.take(key, "told again", both(40))
    not_yet = await counters.take(key, "not yet", both(30))
    await counters._redis.flushdb()
    probe = await counters.take(key, "probe", both(1))
    counters.settle(key, "probe", both(1), [0, 0], probe.slot)
    await told(counters)
    await counters._renew_some(key, {"told again": counters._running[key]["told again"]})
    after = await counters.take(key, "after", both(10))
    third = await counters.take(key, "third", both(1))
    for lease, taken, verdict in (("told again", 40, told_again), ("not yet", 30, not_yet)):
        counters.settle(key, lease, both(taken), [1, 25], verdict.slot)
    await told(counters)
    last = await counters.take(key, "last", both(1))
    await counters.close()

    assert probe.left == (1, 99)
    assert (after.left, third.refused_by) == ((0, 50), 0)
    assert last.left == (0, 100 - 10 - 25 - 25 - 1)


async def test_a_request_that_is_over_leaves_nothing_of_its_own_for_long(redis: RedisServer) -> None:
    """Thousands come in a minute; only that it was settled is remembered for ten minutes."""
    ledger = MemoryLedger()
    counters = RedisCounters(redis.url, ledger.load, prefix="lasting")
    for limits in (KeyLimits(requests_per_minute=5), KeyLimits(tokens_per_minute=50), KeyLimits(tokens_per_day=50, max_concurrency=2)):
        rules = rules_of(limits, Spent(10), NOON)
        verdict = await counters.take("team", uuid.uuid4().hex, rules)
        assert verdict.refused_by is None
        lease = uuid.uuid4().hex
        verdict = await counters.take("team", lease, rules)
        counters.settle("team", lease, rules, [rule.cost if rule.unit is Unit.REQUESTS else 20 for rule in rules], verdict.slot)
    async with asyncio.timeout(30):
        while counters.num_untold:
            await asyncio.sleep(0.005)
    known = [key async for key in counters._redis.scan_iter("lasting:*taken*")]
    await counters.close()

    assert len(known) == 2  # of the two that still run


async def test_without_redis_nobody_is_let_in_and_told_so(redis: RedisServer) -> None:
    """Nobody could say how much is left. When it is back, budgets are what the database knows."""
    ledger, limits = MemoryLedger(), KeyLimits(tokens_per_day=100)
    counters = RedisCounters(redis.url, ledger.load)
    rules = rules_of(limits, Spent(10), NOON)
    await counters.take("team", "a", rules)
    redis.kill()
    try:
        with pytest.raises(NotReady, match="limits cannot be looked up"):
            await counters.take("team", "b", rules)
        counters.settle("team", "a", rules, [40], 0)
    finally:
        redis.start()
    ledger.add("team", TODAY, Spent(70))

    assert (await counters.take("team", "c", rules)).left == (20,)
    await counters.close()


async def test_the_log_says_why_redis_refuses(caplog: pytest.LogCaptureFixture) -> None:
    """By Redis' own word and no more: the rest may repeat what it was asked, or who asked."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-DENIED Redis is running in protected mode, 10.0.0.7 may not come in\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    counters = RedisCounters(f"redis://:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/0", MemoryLedger().load)

    with pytest.raises(NotReady, match="limits cannot be looked up"):
        await counters.take("team", "a", rules_of(KeyLimits(requests_per_minute=1), Spent(0), NOON))
    await counters.close()
    server.close()

    told = " ".join(record.getMessage() for record in caplog.records)
    assert "ResponseError (DENIED)" in told
    assert "secret" not in told
    assert "10.0.0.7" not in told
