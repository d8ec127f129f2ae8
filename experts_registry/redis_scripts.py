"""The scripts that count limits in Redis, by Redis' own clock. Everything of one API key is on one node, as a script needs it.

A window is a hash of slots, with their total. What runs at once is a sorted set of leases, by when they end. A budget is a hash and a
sorted set: ``spent`` is what has ended, ``held`` what runs and has taken beforehand; the set has each lease with its cost behind a colon,
by when the lease ends, and one entry that never does, so that the set stays. ``loaded`` is when the database was read for ``spent``,
``read`` when it was compared last. Whatever a replica holds it tells again every few seconds: what a dead one held is free when its leases
have ended, and what Redis has lost is held again. All times are milliseconds.
"""

from __future__ import annotations

TAKE = """
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local slot_ms, num_slots = tonumber(ARGV[1]), tonumber(ARGV[2])
local lease, lease_ms, taken_s = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local reread_ms, reread_again_ms = tonumber(ARGV[6]), tonumber(ARGV[7])
local slot = math.floor(now_ms / slot_ms)
local oldest = slot - num_slots
local refused, wait_ms, due = 0, 0, 0
local used, ends = {}, {}
local settled, taken = KEYS[1], KEYS[2]
local num_rules = (#KEYS - 2) / 2

if redis.call('EXISTS', settled) == 1 then
  return {-2}
end

local function counts(key, first, last)
  local names = {}
  for s = first, last do names[#names + 1] = s end
  return redis.call('HMGET', key, unpack(names))
end

for i = 1, num_rules do
  local key, held = KEYS[1 + 2 * i], KEYS[2 + 2 * i]
  local kind, limit, cost = ARGV[5 + 3 * i], tonumber(ARGV[6 + 3 * i]), tonumber(ARGV[7 + 3 * i])
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
    local known = redis.call('HMGET', key, 'spent', 'held', 'read')
    if not known[1] then
      return {-1, i}
    end
    local holds = tonumber(known[2])
    for _, ended in ipairs(redis.call('ZRANGEBYSCORE', held, '-inf', now_ms)) do
      local had = tonumber(string.match(ended, ':(%d+)$'))
      redis.call('ZREM', held, ended)
      redis.call('HINCRBY', key, 'held', -had)
      holds = holds - had
    end
    used[i] = tonumber(known[1]) + holds
    if due == 0 and now_ms - tonumber(known[3]) > reread_ms then
      due = i
      redis.call('HSET', key, 'read', now_ms - reread_ms + reread_again_ms)
    end
  else
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms)
    used[i] = redis.call('ZCARD', key)
  end
  if refused == 0 and used[i] + cost > limit then
    refused = i
  end
end

local told = {refused, wait_ms, slot, due}
for i = 1, num_rules do
  local key, held = KEYS[1 + 2 * i], KEYS[2 + 2 * i]
  local kind, limit, cost = ARGV[5 + 3 * i], tonumber(ARGV[6 + 3 * i]), tonumber(ARGV[7 + 3 * i])
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
      if cost > 0 then
        redis.call('HINCRBY', key, 'held', cost)
        redis.call('ZADD', held, now_ms + lease_ms, lease .. ':' .. ARGV[7 + 3 * i])
      end
    else
      redis.call('ZADD', key, now_ms + lease_ms, lease)
      redis.call('PEXPIRE', key, 2 * lease_ms)
    end
  end
  told[#told + 1] = left
  told[#told + 1] = ends[i]
end
if refused == 0 and taken_s > 0 then
  redis.call('SET', taken, slot, 'EX', taken_s)
end
return told
"""
"""Keys: what remembers that the lease is settled, what remembers in which slot it was taken; of each rule its own, and its leases' (for
budgets; else its own again). Arguments: slot length, slots, lease, its length, how long the slot is remembered (s; 0: not at all), after
how long a budget is due to be compared with the database, and after how long again if nobody did; for each rule kind, limit and cost.
Answers: the place of the rule that refused (0: none; -1: a budget is not loaded, its place next; -2: nobody waits for it any more,
nothing was taken), milliseconds to wait, the slot, the place of a budget that is due (0: none); for each rule what is left and when its
window is empty."""

SETTLE = """
local now = redis.call('TIME')
local slot_ms, num_slots, lease, was_taken = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local ended_ms, slot = now_ms - tonumber(ARGV[5]), math.floor(now_ms / slot_ms)
if not redis.call('SET', KEYS[1], 1, 'NX', 'EX', 600) then
  return
end
local taken_in = tonumber(redis.call('GET', KEYS[2]) or '-1')
redis.call('DEL', KEYS[2])
for i = 1, (#KEYS - 2) / 2 do
  local key, held = KEYS[1 + 2 * i], KEYS[2 + 2 * i]
  local kind, cost, real = ARGV[3 + 3 * i], tonumber(ARGV[4 + 3 * i]), tonumber(ARGV[5 + 3 * i])
  if kind == 'c' then
    redis.call('ZREM', key, lease)
  elseif kind == 'b' then
    local loaded_ms = redis.call('HGET', key, 'loaded')
    if loaded_ms then
      if redis.call('ZREM', held, lease .. ':' .. ARGV[4 + 3 * i]) == 1 then
        redis.call('HINCRBY', key, 'held', -cost)
      end
      if real > 0 and ended_ms >= tonumber(loaded_ms) then
        redis.call('HINCRBY', key, 'spent', real)
      end
    end
  elseif (was_taken == 0 or taken_in >= 0) and real ~= cost then
    local difference = real - cost
    if taken_in >= slot - num_slots and redis.call('HEXISTS', key, taken_in) == 1 then
      redis.call('HINCRBY', key, taken_in, difference)
      redis.call('HINCRBY', key, 'total', difference)
    elseif difference > 0 then
      redis.call('HINCRBY', key, slot, difference)
      redis.call('HINCRBY', key, 'total', difference)
      redis.call('HSETNX', key, 'first', slot)
      redis.call('HSET', key, 'last', slot)
      redis.call('PEXPIRE', key, (num_slots + 2) * slot_ms)
    end
  end
end
"""
"""Keys as of ``TAKE``; the first remembers that this was done: it is told again when no answer came. Arguments: slot length, slots, lease,
whether anything was taken beforehand (1: of windows, what Redis does not know of, never taken or lost with all that it held, is not settled
either), how long ago it ended; for each rule kind, what was taken, and what it cost. What has left a window is over, and with it the window
may be; what it cost more counts now. What ended before a budget was loaded stands in what was loaded."""

RENEW = """
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local kind, lease_ms = ARGV[1], tonumber(ARGV[2])
if kind == 'b' and redis.call('HEXISTS', KEYS[1], 'spent') == 0 then
  return
end
for i = 3, #KEYS do
  local member = ARGV[i]
  if redis.call('EXISTS', KEYS[i]) == 0 and redis.call('ZADD', KEYS[2], now_ms + lease_ms, member) == 1 and kind == 'b' then
    redis.call('HINCRBY', KEYS[1], 'held', tonumber(string.match(member, ':(%d+)$')))
  end
end
if kind == 'c' then
  redis.call('PEXPIRE', KEYS[2], 2 * lease_ms)
end
"""
"""What still runs. Keys: the rule's own, its leases' (the same, of requests at once), and of each lease what remembers that it is settled.
Arguments: kind, length of a lease, and the leases as they stand in the set. What the set does not know is held again: Redis has lost it, or
its replica was not heard for long."""

LOAD = """
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local amount, kept_ms = tonumber(ARGV[1]), tonumber(ARGV[3])
local spent = tonumber(redis.call('HGET', KEYS[1], 'spent'))
if not spent then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'spent', amount, 'held', 0, 'loaded', now_ms - tonumber(ARGV[2]), 'read', now_ms)
  redis.call('PEXPIRE', KEYS[1], kept_ms)
elseif ARGV[4] == '1' then
  local holds = 0
  for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    holds = holds + tonumber(string.match(member, ':(%d+)$'))
  end
  redis.call('HSET', KEYS[1], 'spent', math.max(spent, amount), 'held', holds, 'read', now_ms)
else
  return
end
redis.call('ZADD', KEYS[2], '+inf', '_:0')
redis.call('PEXPIRE', KEYS[2], redis.call('PTTL', KEYS[1]) + 3600000)
"""
"""Keys: a budget's. Arguments: what the database says was spent, how long ago it began to be read, how long the budget is kept, and
whether (1) what is known is compared with it. What is known is never lowered: Redis hears at once what the database is told a moment
later."""
