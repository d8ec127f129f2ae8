"""Limits that all replicas count together, in Redis: one script, so one round trip, takes all that a request needs or nothing of it.

Redis' own clock counts, so replicas need not agree on the time. Keys hold their key's id in braces: in a cluster one key's counters
are on one node, as a script needs them.

The counting is our own: of the limiter libraries (limits, redis-rate-limiters, pyrate-limiter) none takes several limits at once or
none of them, none gives back what an estimate was too high, and for a window of exactly a minute they keep an entry for each token.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from domain.errors import InvalidRequest, NotReady
from domain.limiting import NUM_SLOTS, SLOT_S, Kind, Rule, Unit, Verdict
from domain.random_ids import random_id
from domain.spending import Spent

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
"""How long a budget is counted on before it is read from the database again: what a killed replica's requests had taken, and never gave
back, is free after that. What runs then is counted when it ends."""
_SAME_MS = 100
"""A budget that was read so shortly after something was taken is the one that it was taken from: Redis' times are not exact."""

_TAKEN_KEPT_S = 86_400
"""Of what remembers that something was taken: longer than any request runs."""
_NOT_LOADED = -1
"""What the script refuses by when a budget is not there: its place is in ``wait``."""

_TAKE = """
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local slot_ms, num_slots = tonumber(ARGV[1]), tonumber(ARGV[2])
local lease, lease_ms = ARGV[3], tonumber(ARGV[4])
local slot = math.floor(now_ms / slot_ms)
local oldest = slot - num_slots
local refused, wait_ms = 0, 0
local used, ends = {}, {}
local num_rules = #KEYS - 2
local settled, taken = KEYS[num_rules + 1], KEYS[num_rules + 2]

if redis.call('EXISTS', settled) == 1 then
  return {-2}
end

local function counts(key, first, last)
  local names = {}
  for s = first, last do names[#names + 1] = s end
  return redis.call('HMGET', key, unpack(names))
end

for i = 1, num_rules do
  local key = KEYS[i]
  local kind, limit, cost = ARGV[3 + 3 * i], tonumber(ARGV[4 + 3 * i]), tonumber(ARGV[5 + 3 * i])
  used[i], ends[i] = 0, 0
  if kind == 'w' then
    local known = redis.call('HMGET', key, 'total', 'first', 'last')
    local total, first, last = tonumber(known[1]), tonumber(known[2]), tonumber(known[3])
    if total and last < oldest then
      redis.call('DEL', key)
      total = nil
    end
    if total then
      if first < oldest then
        local left = counts(key, first, oldest - 1)
        for n = 1, oldest - first do
          if left[n] then
            total = total - left[n]
            redis.call('HDEL', key, first + n - 1)
          end
        end
        redis.call('HSET', key, 'total', total, 'first', oldest)
        first = oldest
      end
      used[i], ends[i] = total, (last + num_slots + 1) * slot_ms - now_ms
      if refused == 0 and total + cost > limit then
        local missing = total + cost - limit
        local there = counts(key, first, last)
        wait_ms = ends[i]
        for n = 1, last - first + 1 do
          missing = missing - (there[n] or 0)
          if missing <= 0 then
            wait_ms = (first + n + num_slots) * slot_ms - now_ms
            break
          end
        end
      end
    end
  elseif kind == 'b' then
    local spent = redis.call('GET', key)
    if not spent then
      return {-1, i, slot}
    end
    used[i] = tonumber(spent)
  else
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms)
    used[i] = redis.call('ZCARD', key)
  end
  if refused == 0 and used[i] + cost > limit then
    refused = i
  end
end

local told = {refused, wait_ms, slot}
for i = 1, num_rules do
  local key = KEYS[i]
  local kind, limit, cost = ARGV[3 + 3 * i], tonumber(ARGV[4 + 3 * i]), tonumber(ARGV[5 + 3 * i])
  local left = limit - used[i]
  if refused == 0 then
    left = left - cost
    if kind == 'w' then
      redis.call('HINCRBY', key, slot, cost)
      redis.call('HINCRBY', key, 'total', cost)
      redis.call('HSETNX', key, 'first', slot)
      redis.call('HSET', key, 'last', slot)
      redis.call('PEXPIRE', key, (num_slots + 2) * slot_ms)
      ends[i] = (slot + num_slots + 1) * slot_ms - now_ms
    elseif kind == 'b' then
      redis.call('INCRBY', key, cost)
    else
      redis.call('ZADD', key, now_ms + lease_ms, lease)
      redis.call('PEXPIRE', key, 2 * lease_ms)
    end
  end
  told[#told + 1] = left
  told[#told + 1] = ends[i]
end
if refused == 0 and tonumber(ARGV[5]) > 0 then
  redis.call('SET', taken, slot .. ':' .. now_ms, 'EX', tonumber(ARGV[5]))
end
return told
"""
"""Keys: of each rule, what remembers that the lease is settled, and what remembers that it was taken, and in which slot. Arguments: slot
length (ms), slots, lease, its length (ms), how long it is remembered (s; 0: not at all); for each rule kind, limit and cost. Answers: the
place of the rule that refused (0: none; -1: a budget is not loaded, its place next; -2: nobody waits for it any more, nothing was
taken), milliseconds to wait, the slot; for each rule what is left and when its window is empty (ms)."""

_SETTLE = """
local now = redis.call('TIME')
local slot_ms, num_slots, lease, was_taken = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local now_ms, kept_ms, same_ms = now[1] * 1000 + math.floor(now[2] / 1000), tonumber(ARGV[5]), tonumber(ARGV[6])
local slot = math.floor(now_ms / slot_ms)
if not redis.call('SET', KEYS[1], 1, 'NX', 'EX', 600) then
  return
end
local taken_in, taken_ms = string.match(redis.call('GET', KEYS[2]) or '-1:0', '(.+):(.+)')
taken_in, taken_ms = tonumber(taken_in), tonumber(taken_ms)
redis.call('DEL', KEYS[2])
if was_taken == 1 and taken_in < 0 then
  return
end
for i = 3, #KEYS do
  local key, kind, difference, cost = KEYS[i], ARGV[3 * i - 2], tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  if kind == 'b' and was_taken == 1 and now_ms + redis.call('PTTL', key) - kept_ms > taken_ms + same_ms then
    difference = difference + cost
  end
  if kind == 'c' then
    redis.call('ZREM', key, lease)
  elseif difference ~= 0 and redis.call('EXISTS', key) == 1 then
    if kind == 'b' then
      redis.call('INCRBY', key, difference)
    elseif taken_in >= slot - num_slots and redis.call('HEXISTS', key, taken_in) == 1 then
      redis.call('HINCRBY', key, taken_in, difference)
      redis.call('HINCRBY', key, 'total', difference)
    elseif difference > 0 then
      redis.call('HINCRBY', key, slot, difference)
      redis.call('HINCRBY', key, 'total', difference)
      redis.call('HSET', key, 'last', slot)
      redis.call('PEXPIRE', key, (num_slots + 2) * slot_ms)
    end
  end
end
"""
"""The first key remembers that this was done: it is told again when no answer came. The second is what ``_TAKE`` has left. Arguments: slot
length (ms), slots, lease, whether anything has to have been taken (1: what Redis does not know of, never taken or lost with all that it
held, is not settled either), how long budgets are kept (ms), what counts as at once (ms); for each further key kind, what it cost more
than was taken, and what was taken: of a budget that was read anew meanwhile, nothing was."""

_RENEW = """
local now = redis.call('TIME')
local ends = now[1] * 1000 + math.floor(now[2] / 1000) + tonumber(ARGV[1])
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], 'XX', ends, ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], 2 * tonumber(ARGV[1]))
"""

LoadSpent = Callable[[str, str], Awaitable[Spent]]
"""What a key has spent in a period, as the database knows it."""


@dataclass(frozen=True, slots=True)
class _Told:
    """A call of the settling script."""

    keys: tuple[str, ...]
    arguments: tuple[str | int, ...]


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
        self._take = self._redis.register_script(_TAKE)
        self._settle = self._redis.register_script(_SETTLE)
        self._renew = self._redis.register_script(_RENEW)
        self._running: dict[str, set[str]] = {}
        """By key id: the leases of requests that run here, of keys with a limit on them."""
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
        keys = [*(self._name(key_id, rule) for rule in rules), *self._of_lease(key_id, lease)]
        arguments: list[str | int] = [_ms(SLOT_S), NUM_SLOTS, lease, _ms(LEASE_S), _TAKEN_KEPT_S if _may_differ(rules) else 0]
        for rule in rules:
            arguments += (rule.kind.value, rule.limit, rule.cost)
        for _ in range(len(rules) + 1):
            try:
                told = await self._asked(self._take(keys=keys, args=arguments))
            except BaseException:
                # No answer, or nobody to hear it: it may have been taken all the same, or will be.
                self._tell(key_id, lease, [(rule, -rule.cost) for rule in rules])
                raise
            if told[0] != _NOT_LOADED:
                break
            missing = told[1] - 1
            await self._load_budget(key_id, keys[missing], rules[missing])
        else:
            raise NotReady("limits cannot be counted: Redis forgets what it is told (it may be out of memory)")
        refused, wait_ms, slot, *each = told
        verdict = Verdict(
            None if refused == 0 else refused - 1,
            wait_ms / 1e3,
            tuple(each[0::2]),
            tuple(max(0.0, ms / 1e3) for ms in each[1::2]),
            slot,
        )
        if verdict.refused_by is None and any(rule.kind is Kind.CONCURRENCY for rule in rules):
            self._running.setdefault(key_id, set()).add(lease)
        return verdict

    def settle(self, key_id: str, lease: str, rules: Sequence[Rule], costs: Sequence[int], slot: int) -> None:  # noqa: ARG002  # Redis knows it
        if (running := self._running.get(key_id)) is not None:
            running.discard(lease)
            if not running:
                del self._running[key_id]
        differs = [(rule, c - rule.cost) for rule, c in zip(rules, costs, strict=True) if c != rule.cost or rule.kind is not Kind.WINDOW]
        self._tell(key_id, lease, differs)

    def charge(self, key_id: str, spent: Spent, rules: Sequence[Rule]) -> None:
        costs = [(rule, spent.nano_usd if rule.unit is Unit.USD else spent.tokens) for rule in rules]
        self._tell(key_id, random_id(), costs, was_taken=False)

    def _tell(self, key_id: str, lease: str, differs: Sequence[tuple[Rule, int]], *, was_taken: bool = True) -> None:
        if not differs:
            return
        self._begin()
        arguments: list[str | int] = [_ms(SLOT_S), NUM_SLOTS, lease, int(was_taken), _ms(REREAD_S), _SAME_MS]
        for rule, difference in differs:
            arguments += (rule.kind.value, difference, rule.cost)
        if len(self._untold) >= MAX_UNTOLD:
            self._untold.popleft()
        self._untold.append(_Told((*self._of_lease(key_id, lease), *(self._name(key_id, rule) for rule, _ in differs)), tuple(arguments)))
        self._has_untold.set()

    async def close(self) -> None:
        """Tell Redis what is not told yet, and disconnect."""
        self._is_closing = True
        self._has_untold.set()
        for task in self._tasks:
            task.cancel()
        if self._tasks:  # the client may swallow a cancellation: then its task sees that we close
            await asyncio.wait(self._tasks, timeout=ANSWER_TIMEOUT_S)
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
                await self._settle(keys=told.keys, args=told.arguments, client=pipe)
            await pipe.execute()
        for told in some:  # unless it was dropped meanwhile
            if self._untold and self._untold[0] is told:
                self._untold.popleft()

    async def _renew_forever(self) -> None:
        while not self._is_closing:
            await asyncio.sleep(RENEW_S)
            try:
                for key_id, leases in list(self._running.items()):
                    key = self._named(key_id, Kind.CONCURRENCY, Unit.REQUESTS, "")
                    await self._renew(keys=[key], args=[_ms(LEASE_S), *leases])
            except (RedisError, OSError) as error:
                logger.warning("running requests cannot be told to Redis: %s", _plain(error))

    async def _load_budget(self, key_id: str, key: str, rule: Rule) -> None:
        spent = await self._load(key_id, rule.period)
        amount = spent.nano_usd if rule.unit is Unit.USD else spent.tokens
        await self._asked(self._redis.set(key, amount, nx=True, px=_ms(REREAD_S)))

    async def _asked(self, asking: Awaitable[Any]) -> Any:
        try:
            return await asking
        except (RedisError, OSError) as error:
            logger.warning("limits cannot be looked up in Redis: %s", _plain(error))
            raise NotReady("limits cannot be looked up at the moment: try again in a few seconds") from error

    def _name(self, key_id: str, rule: Rule) -> str:
        return self._named(key_id, rule.kind, rule.unit, rule.period)

    def _of_lease(self, key_id: str, lease: str) -> tuple[str, str]:
        """What remembers that a lease is settled, and that it was taken."""
        return f"{self._prefix}:{{{key_id}}}:settled:{lease}", f"{self._prefix}:{{{key_id}}}:taken:{lease}"

    def _named(self, key_id: str, kind: Kind, unit: Unit, period: str) -> str:
        return f"{self._prefix}:{{{key_id}}}:{kind.value}:{unit.value}{':' if period else ''}{period}"


def _may_differ(rules: Sequence[Rule]) -> bool:
    """Whether there is anything to settle. One more of a minute's requests is forgotten by itself, and nobody tells that it is over."""
    return any(rule.unit is not Unit.REQUESTS or rule.kind is not Kind.WINDOW for rule in rules)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _plain(error: BaseException) -> str:
    """What went wrong, with Redis' own word for it if it said one (``DENIED``, ``READONLY``); without the address, which may hold a
    password."""
    word = str(error).partition(" ")[0] if isinstance(error, ResponseError) else ""
    return f"{type(error).__name__} ({word})" if word.isalpha() and word.isupper() else type(error).__name__
