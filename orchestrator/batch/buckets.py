"""From the lines of a batch to buckets: all calls of one expert in one role. Pure."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count

from domain.plan import CallRole
from orchestrator.batch.placement import Share
from orchestrator.batch.progress import CallState, Progress
from orchestrator.batch.routes import RouteTable, frozen

_CANDIDATE, _AGGREGATOR = 0, 1
ROLES = (CallRole.CANDIDATE, CallRole.AGGREGATOR)

Demand = Mapping[tuple[str, CallRole], int]
"""Calls that are still to be made, by expert and role."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Calls of one expert in one role that run as one stream, so that its server batches them.

    Of an expert whose server has a copy on a second device each copy has a bucket of its own.
    """

    number: int
    expert_id: str
    role: CallRole
    calls: memoryview[int] = field(repr=False, hash=False)
    """Numbers in the route table, ascending."""
    seconds: float
    """Predicted, alone on its server."""

    @property
    def num_calls(self) -> int:
        return len(self.calls)


@dataclass(frozen=True, slots=True)
class Cut:
    """The buckets, and what they wait for."""

    buckets: tuple[Bucket, ...]
    devices: tuple[str | None, ...]
    """(buckets): where each runs; None is elsewhere."""
    needs: tuple[frozenset[int], ...]
    """(buckets): for an aggregator's bucket the candidates' buckets that its lines wait for."""


def due_calls(table: RouteTable, progress: Progress | None, gone: Container[int]) -> bytearray:
    """(calls): 1 where a call is still to be made.

    *gone* are the numbers of experts that cannot be called. An aggregator's call is due as long as two candidates may still
    answer; whether it comes to that is seen when they have.
    """
    due = bytearray(table.num_calls)
    states = progress.states if progress else bytes(table.num_calls)
    experts, offsets = table.experts, table.offsets
    start = 0
    for line, aggregated in enumerate(table.aggregated):
        end = offsets[line + 1]
        num_hopeful = 0
        for call in range(start, end - aggregated):
            if states[call] == CallState.ANSWERED:
                num_hopeful += 1
            elif states[call] == CallState.PENDING and experts[call] not in gone:
                due[call] = 1
                num_hopeful += 1
        if aggregated and num_hopeful > 1 and states[end - 1] == CallState.PENDING and experts[end - 1] not in gone:
            due[end - 1] = 1
        start = end
    return due


def demand(table: RouteTable, due: bytearray) -> Demand:
    """How many calls are due, by expert and role."""
    of_role = (Counter[int](), Counter[int]())
    aggregators = _aggregator_flags(table)
    for call, expert in enumerate(table.experts):
        if due[call]:
            of_role[aggregators[call]][expert] += 1
    return {(table.expert_ids[expert], role): num for role, found in zip(ROLES, of_role, strict=True) for expert, num in found.items()}


def cut(
    table: RouteTable,
    due: bytearray,
    wanted: Demand,
    shares: Mapping[str, Sequence[Share]],
    seconds: Mapping[tuple[str, CallRole], float],
) -> Cut:
    """One bucket for each expert, role and device that has a share of the expert (*shares*), in the order of *wanted*.

    *seconds* are those of one call, by expert and role.
    """
    keys: list[tuple[str, CallRole, str | None]] = []
    quotas: list[int] = []
    first: dict[tuple[str, CallRole], int] = {}
    for (expert, role), num_calls in wanted.items():
        first[expert, role] = len(keys)
        for share, quota in zip(shares[expert], _quotas(num_calls, [share.part for share in shares[expert]]), strict=True):
            if quota:
                keys.append((expert, role, share.device))
                quotas.append(quota)
    current = [[first.get((expert, role), -1) for expert in table.expert_ids] for role in ROLES]
    calls, needs = _fill(table, due, quotas, current)
    buckets = tuple(
        Bucket(number, expert, role, frozen(calls[number]), len(calls[number]) * seconds[expert, role])
        for number, (expert, role, _) in enumerate(keys)
    )
    return Cut(buckets, tuple(device for _, _, device in keys), tuple(_set_bits(bits) for bits in needs))


def _fill(table: RouteTable, due: bytearray, quotas: Sequence[int], current: Sequence[list[int]]) -> tuple[list[array[int]], list[int]]:
    """The calls of each bucket, and as bits the buckets it waits for. *current* (roles, experts) is the bucket being filled."""
    calls, needs, left = [array("I") for _ in quotas], [0] * len(quotas), list(quotas)
    experts, offsets = table.experts, table.offsets
    candidates, aggregators = current
    start = 0
    for line, aggregated in enumerate(table.aggregated):
        end = offsets[line + 1]
        waited = 0
        for call in range(start, end - aggregated):
            if due[call]:
                bucket = candidates[experts[call]]
                calls[bucket].append(call)
                waited |= 1 << bucket
                left[bucket] -= 1
                if not left[bucket]:
                    candidates[experts[call]] += 1
        if aggregated and due[end - 1]:
            bucket = aggregators[experts[end - 1]]
            calls[bucket].append(end - 1)
            needs[bucket] |= waited
            left[bucket] -= 1
            if not left[bucket]:
                aggregators[experts[end - 1]] += 1
        start = end
    return calls, needs


def _aggregator_flags(table: RouteTable) -> bytearray:
    flags = bytearray(table.num_calls)
    for line, aggregated in enumerate(table.aggregated):
        if aggregated:
            flags[table.offsets[line + 1] - 1] = _AGGREGATOR
    return flags


def _quotas(num_calls: int, parts: Sequence[float]) -> list[int]:
    """*num_calls* cut in proportion to *parts*, which sum to 1."""
    ends = [round(num_calls * total) for total in accumulate(parts)]
    ends[-1] = num_calls
    return [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _set_bits(bits: int) -> frozenset[int]:
    return frozenset(place for place, bit in zip(count(), reversed(f"{bits:b}"), strict=False) if bit == "1")
