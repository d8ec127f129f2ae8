"""Limits that all replicas count together, in Redis: one script, so one round trip, takes all that a request needs or nothing of it.

Redis' own clock counts, so replicas need not agree on the time. Keys hold their key's id in braces: in a cluster one key's counters
are on one node, as a script needs them.

The counting is our own; docs/adr/0010 has what the library ``limits`` was measured to do instead.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from domain.errors import ConsiliumError, InvalidRequest, NotReady
from domain.limiting import NUM_SLOTS, SLOT_S, Kind, Rule, Unit, Verdict
from domain.random_ids import random_id
from domain.spending import Spent
from experts_registry.redis_scripts import LOAD, RENEW, SETTLE, TAKE

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 1.0
"""Longest wait for Redis, for a connection to it or for a free one of the pool: it answers in a tenth of a millisecond."""
MAX_CONNECTIONS = 32
"""To Redis. Requests wait for one as long as for an answer; each is busy for a fraction of a millisecond."""
LEASE_S = 60.0
"""How long a request counts as running when its replica says nothing more of it: then the replica is dead."""
RENEW_S = 15.0
"""How often a replica says that its requests still run."""
MAX_UNTOLD = 100_000
"""Settlements that wait while Redis is away; the oldest are dropped beyond, which leaves what was taken as used."""
_RETRY_S = 1.0
_TOLD_AT_ONCE = 128
_CLOSE_TIMEOUT_S = 5.0
REREAD_S = 3600.0
"""How long a budget is counted on before it is compared with the database: a Redis that came back with an old state knows too little."""
_REREAD_AGAIN_S = 60.0
"""The same after nobody could."""
_DAY_KEPT_S, _MONTH_KEPT_S = 2 * 86_400.0, 33 * 86_400.0
"""How long Redis keeps a budget: longer than its day or month, and the requests that were begun in it."""
_RENEWED_AT_ONCE = 256

_TAKEN_KEPT_S = 86_400
"""Of what remembers that something was taken: longer than any request runs."""
_NOT_LOADED = -1
"""What the script refuses by when a budget is not there: its place is next."""

LoadSpent = Callable[[str, str], Awaitable[Spent]]
"""What a key has spent in a period, as the database knows it."""


@dataclass(frozen=True, slots=True)
class _Told:
    """A call of the settling script."""

    keys: tuple[str, ...]
    lease: str
    was_taken: bool
    ended_at: float
    """Monotonic seconds."""
    costs: tuple[str | int, ...]
    """Of each rule: kind, what was taken, what it cost."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What a running request holds of one rule, until it is settled."""

    kind: Kind
    names: tuple[str, str]
    member: str


class RedisCounters:
    """Satisfies ``orchestrator.admission.ports.Counters`` for all replicas on one Redis.

    Budgets are loaded by *load* when Redis does not know them: at the beginning of a period, and after it has lost what it held.
    """

    def __init__(self, url: str, load: LoadSpent, *, prefix: str = "consilium") -> None:
        """Connects when first used. Raises ``InvalidRequest`` when *url* is none of Redis'."""
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=MAX_CONNECTIONS,
                timeout=ANSWER_TIMEOUT_S,
                socket_timeout=ANSWER_TIMEOUT_S,
                socket_connect_timeout=ANSWER_TIMEOUT_S,
                decode_responses=True,
                retry=Retry(NoBackoff(), 0),  # what was taken may have been taken although nobody heard of it
            )
        except ValueError as error:
            # The URL may hold a password, so it is not repeated.
            raise InvalidRequest("the Redis URL must start with redis://, rediss:// or unix://", param="redis_url") from error
        self._redis: Redis = Redis.from_pool(pool)  # which closes it, too
        self._load, self._prefix = load, prefix
        self._take = self._redis.register_script(TAKE)
        self._settle = self._redis.register_script(SETTLE)
        self._renew = self._redis.register_script(RENEW)
        self._put = self._redis.register_script(LOAD)
        self._running: dict[str, dict[str, tuple[_Held, ...]]] = {}
        """By key id and lease: what requests hold that run here."""
        self._rereading: dict[str, asyncio.Task[None]] = {}
        """By a budget's name."""
        self._untold: deque[_Told] = deque()
        self._has_untold = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False

    @property
    def num_untold(self) -> int:
        """Settlements that Redis has not heard of yet."""
        return len(self._untold)

    async def take(self, key_id: str, lease: str, rules: Sequence[Rule]) -> Verdict:
        self._begin()
        keys = [*self._of_lease(key_id, lease), *self._names(key_id, rules)]
        arguments: list[str | int] = [_ms(SLOT_S), NUM_SLOTS, lease, _ms(LEASE_S), _TAKEN_KEPT_S if _may_differ(rules) else 0]
        arguments += (_ms(REREAD_S), _ms(_REREAD_AGAIN_S))
        for rule in rules:
            arguments += (rule.kind.value, rule.limit, rule.cost)
        for _ in range(len(rules) + 1):
            try:
                told = await self._asked(self._take(keys=keys, args=arguments))
            except BaseException:
                # No answer, or nobody to hear it: it may have been taken all the same, or will be.
                self._tell(key_id, lease, [(rule, 0) for rule in rules])
                raise
            if told[0] != _NOT_LOADED:
                break
            await self._load_budget(key_id, rules[told[1] - 1])
        else:
            raise NotReady("limits cannot be counted: Redis forgets what it is told (it may be out of memory)")
        refused, wait_ms, slot, due, *each = told
        if due:
            self._reread(key_id, rules[due - 1])
        verdict = Verdict(
            None if refused == 0 else refused - 1,
            wait_ms / 1e3,
            tuple(each[0::2]),
            tuple(max(0.0, ms / 1e3) for ms in each[1::2]),
            slot,
        )
        if verdict.refused_by is None and (held := self._held(key_id, lease, rules)):
            self._running.setdefault(key_id, {})[lease] = held
        return verdict

    def settle(self, key_id: str, lease: str, rules: Sequence[Rule], costs: Sequence[int], slot: int) -> None:  # noqa: ARG002  # Redis knows it
        if (running := self._running.get(key_id)) is not None:
            running.pop(lease, None)
            if not running:
                del self._running[key_id]
        differs = [(rule, cost) for rule, cost in zip(rules, costs, strict=True) if cost != rule.cost or rule.kind is not Kind.WINDOW]
        self._tell(key_id, lease, differs)

    def charge(self, key_id: str, spent: Spent, rules: Sequence[Rule]) -> None:
        costs = [(rule, spent.nano_usd if rule.unit is Unit.USD else spent.tokens) for rule in rules]
        self._tell(key_id, random_id(), costs, was_taken=False)

    def _tell(self, key_id: str, lease: str, spent: Sequence[tuple[Rule, int]], *, was_taken: bool = True) -> None:
        """Each of the rules has cost so much in the end."""
        if not spent:
            return
        self._begin()
        costs: list[str | int] = []
        for rule, cost in spent:
            costs += (rule.kind.value, rule.cost, cost)
        if len(self._untold) >= MAX_UNTOLD:
            self._untold.popleft()
        keys = (*self._of_lease(key_id, lease), *self._names(key_id, [rule for rule, _ in spent]))
        self._untold.append(_Told(keys, lease, was_taken, time.monotonic(), tuple(costs)))
        self._has_untold.set()

    async def close(self) -> None:
        """Tell Redis what is not told yet, and disconnect."""
        self._is_closing = True
        self._has_untold.set()
        tasks = [*self._tasks, *self._rereading.values()]
        for task in tasks:
            task.cancel()
        if tasks:  # the client may swallow a cancellation: then its task sees that we close
            await asyncio.wait(tasks, timeout=ANSWER_TIMEOUT_S)
        self._tasks = []
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                while self._untold:
                    await self._tell_some()
        except (TimeoutError, RedisError, OSError) as error:
            logger.error("%d requests were not settled with Redis before the end: %s", len(self._untold), _plain(error))
        await self._redis.aclose()

    def _begin(self) -> None:
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._tell_forever(), name="limits settling"),
                asyncio.create_task(self._renew_forever(), name="limits renewing"),
            ]

    async def _tell_forever(self) -> None:
        is_failing = False
        while not self._is_closing:
            await self._has_untold.wait()
            self._has_untold.clear()
            try:
                while self._untold and not self._is_closing:
                    await self._tell_some()
                is_failing = False
            except (RedisError, OSError) as error:
                if not is_failing:
                    logger.warning("requests cannot be settled with Redis: %s; tried again", _plain(error))
                is_failing = True
                await asyncio.sleep(_RETRY_S)
                self._has_untold.set()

    async def _tell_some(self) -> None:
        """The oldest that are not told yet, in one round trip."""
        some = [self._untold[place] for place in range(min(_TOLD_AT_ONCE, len(self._untold)))]
        async with self._redis.pipeline(transaction=False) as pipe:
            for told in some:
                ago_ms = math.floor(1000 * (time.monotonic() - told.ended_at))  # if anything, later than it was: then it counts
                arguments = [_ms(SLOT_S), NUM_SLOTS, told.lease, int(told.was_taken), ago_ms, *told.costs]
                await self._settle(keys=told.keys, args=arguments, client=pipe)
            await pipe.execute()
        for told in some:  # unless it was dropped meanwhile
            if self._untold and self._untold[0] is told:
                self._untold.popleft()

    async def _renew_forever(self) -> None:
        while not self._is_closing:
            await asyncio.sleep(RENEW_S)
            try:
                for key_id, leases in list(self._running.items()):
                    await self._renew_some(key_id, dict(leases))
            except (RedisError, OSError) as error:
                logger.warning("running requests cannot be told to Redis: %s", _plain(error))

    async def _renew_some(self, key_id: str, leases: Mapping[str, Sequence[_Held]]) -> None:
        """*leases* of one key still run."""
        by_rule: dict[tuple[Kind, tuple[str, str]], list[tuple[str, str]]] = {}
        for lease, holds in leases.items():
            for held in holds:
                by_rule.setdefault((held.kind, held.names), []).append((self._of_lease(key_id, lease)[0], held.member))
        for (kind, names), all_told in by_rule.items():
            for some in _chunks(all_told):
                keys = [*names, *(settled for settled, _ in some)]
                await self._renew(keys=keys, args=[kind.value, _ms(LEASE_S), *(member for _, member in some)])

    async def _load_budget(self, key_id: str, rule: Rule, *, again: bool = False) -> None:
        began = time.monotonic()
        spent = await self._load(key_id, rule.period)
        if again:  # what has ended when the database was read is to be counted before both are compared
            while self._untold:
                await self._tell_some()
        amount = spent.nano_usd if rule.unit is Unit.USD else spent.tokens
        kept_s = _DAY_KEPT_S if len(rule.period) > len("2026-11") else _MONTH_KEPT_S
        arguments = [amount, math.ceil(1000 * (time.monotonic() - began)), _ms(kept_s), int(again)]
        await self._asked(self._put(keys=self._names(key_id, [rule]), args=arguments))

    def _reread(self, key_id: str, rule: Rule) -> None:
        """Compare a budget with the database, while requests go on."""
        name = self._name(key_id, rule)
        if name in self._rereading:
            return

        async def reread() -> None:
            try:
                await self._load_budget(key_id, rule, again=True)
            except (ConsiliumError, RedisError, OSError) as error:
                logger.warning("a budget cannot be compared with the database: %s", _plain(error))

        task = self._rereading[name] = asyncio.create_task(reread(), name="limits rereading")
        task.add_done_callback(lambda _: self._rereading.pop(name, None))

    async def _asked(self, asking: Awaitable[Any]) -> Any:
        try:
            return await asking
        except (RedisError, OSError) as error:
            logger.warning("limits cannot be looked up in Redis: %s", _plain(error))
            raise NotReady("limits cannot be looked up at the moment: try again in a few seconds") from error

    def _name(self, key_id: str, rule: Rule) -> str:
        return self._named(key_id, rule.kind, rule.unit, rule.period)

    def _names(self, key_id: str, rules: Sequence[Rule]) -> list[str]:
        """Of each rule two: its own, and that of its leases."""
        names: list[str] = []
        for rule in rules:
            name = self._name(key_id, rule)
            names += (name, f"{name}:held" if rule.kind is Kind.BUDGET else name)
        return names

    def _held(self, key_id: str, lease: str, rules: Sequence[Rule]) -> tuple[_Held, ...]:
        """What a request that was let in holds until it is over."""
        held = []
        for rule in rules:
            own, leases = self._names(key_id, [rule])
            if rule.kind is Kind.CONCURRENCY:
                held.append(_Held(rule.kind, (own, leases), lease))
            elif rule.kind is Kind.BUDGET and rule.cost:
                held.append(_Held(rule.kind, (own, leases), f"{lease}:{rule.cost}"))
        return tuple(held)

    def _of_lease(self, key_id: str, lease: str) -> tuple[str, str]:
        """What remembers that a lease is settled, and that it was taken."""
        return f"{self._prefix}:{{{key_id}}}:settled:{lease}", f"{self._prefix}:{{{key_id}}}:taken:{lease}"

    def _named(self, key_id: str, kind: Kind, unit: Unit, period: str) -> str:
        place = "budget" if kind is Kind.BUDGET else kind.value  # under "b" releases before kept them in another form
        return f"{self._prefix}:{{{key_id}}}:{place}:{unit.value}{':' if period else ''}{period}"


def _may_differ(rules: Sequence[Rule]) -> bool:
    """Whether there is anything to settle. One more of a minute's requests is forgotten by itself, and nobody tells that it is over."""
    return any(rule.unit is not Unit.REQUESTS or rule.kind is not Kind.WINDOW for rule in rules)


def _chunks(told: Sequence[tuple[str, str]]) -> Iterator[Sequence[tuple[str, str]]]:
    for start in range(0, len(told), _RENEWED_AT_ONCE):
        yield told[start : start + _RENEWED_AT_ONCE]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _plain(error: BaseException) -> str:
    """What went wrong, with Redis' own word for it if it said one (``DENIED``, ``READONLY``); without the address, which may hold a
    password."""
    word = str(error).partition(" ")[0] if isinstance(error, ResponseError) else ""
    return f"{type(error).__name__} ({word})" if word.isalpha() and word.isupper() else type(error).__name__
