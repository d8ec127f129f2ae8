"""In which order servers take their turns, so that each is loaded once and aggregators are freed early. Pure.

1. What runs elsewhere goes first: it costs no memory. Then candidates whose server is loaded already.
2. The rest falls into *units*: an aggregator's turn with the candidates that it waits for; servers that are both, and wait
   for each other (``interlocked``), as one unit; a candidate that no aggregator waits for, alone. A server that is both
   comes last among the candidates that its own lines wait for, and its aggregations follow at once: it stays loaded.
3. Units are chosen by Smith's rule: the least seconds for a line that is finished by it (Smith 1956). A unit whose
   aggregator is loaded already goes first, one that waits for servers of another unit after that.
4. Within a unit candidates follow Johnson's rule for two machines, here the loader and the slot (Johnson 1954): where the
   load is shorter than the work, short loads first, then long work first. So loads hide behind work.

With several slots long turns should not come last: ``longest_first`` turns 3 and 4 into longest processing time first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from domain.plan import CallRole
from orchestrator.batch.interlocked import Knot, closings, knots, visiting_order
from orchestrator.batch.jobs import Copy, Job


@dataclass(slots=True)
class _Unit:
    """Jobs that are ordered as one: first ``before`` in any order, then ``own`` as it stands."""

    own: list[int]
    before: set[int] = field(default_factory=set)
    after: set[int] = field(default_factory=set)
    """Units that come first, so that none of their servers stays open for this one."""
    lines: int = 0
    resident: bool = False
    seconds: float = 0.0
    """Of what is still to be ordered, loads included."""

    def forget(self, ordered: Iterable[int], jobs: Sequence[Job]) -> None:
        """*ordered* have their place."""
        for job in self.before.intersection(ordered):
            self.before.remove(job)
            self.seconds -= jobs[job].cost_s


def order_jobs(jobs: Sequence[Job], room_mb: Mapping[str, float], *, longest_first: bool = False) -> list[int]:
    """Every place of *jobs* once, each after those that it needs. *room_mb* is the memory of a device for servers."""
    units = _units(jobs, room_mb)
    awaited = {job for unit in units for job in unit.before}
    alone = {job for unit in units for job in unit.own if job not in awaited and len(unit.own) == 1}
    first = [
        number
        for number, job in enumerate(jobs)
        if job.role is CallRole.CANDIDATE and (job.copy is None or (job.resident and (number in awaited or number in alone)))
    ]
    order = sorted(first, key=lambda number: (jobs[number].copy is not None, -jobs[number].seconds, number))
    within = _longest if longest_first else _johnson
    ended = set[int]()
    for unit in units:
        unit.own = [job for job in unit.own if job not in first]
        unit.seconds = sum(jobs[job].cost_s for job in (*unit.before, *unit.own))
        unit.forget(order, jobs)
    left = set(range(len(units)))
    while left:
        ready = [number for number in left if not units[number].after - ended]
        chosen = min(ready, key=lambda number: (*_urgency(units[number], longest_first=longest_first), number))
        unit = units[chosen]
        new = [*sorted(unit.before, key=within(jobs)), *unit.own]
        order += new
        for other in units:
            other.forget(new, jobs)
        ended.add(chosen)
        left.remove(chosen)
    return order


def _units(jobs: Sequence[Job], room_mb: Mapping[str, float]) -> list[_Unit]:
    candidate = {job.copy: number for number, job in enumerate(jobs) if job.copy and job.role is CallRole.CANDIDATE}
    aggregator = {job.copy: number for number, job in enumerate(jobs) if job.copy and job.role is CallRole.AGGREGATOR}
    both = {copy: (candidate[copy], aggregator[copy]) for copy in candidate if copy in aggregator}
    copy_of = {number: copy for copy, (number, _) in both.items()}
    waits = {copy: frozenset(copy_of[job] for job in jobs[number].needs if job in copy_of) for copy, (_, number) in both.items()}
    members = knots(waits)
    unit_of = {copy: number for number, copies in enumerate(members) for copy in copies}
    units = [_knot_unit(copies, waits, both, jobs, room_mb) for copies in members]
    units += [
        _Unit([number], lines=job.num_calls, resident=job.resident)
        for number, job in enumerate(jobs)
        if job.role is CallRole.AGGREGATOR and job.copy not in both
    ]
    for number, unit in enumerate(units):
        for needed in (needed for job in unit.own for needed in jobs[job].needs):
            if needed not in copy_of:
                unit.before.add(needed)
            elif unit_of[copy_of[needed]] != number:
                unit.after.add(unit_of[copy_of[needed]])
    awaited = {job for unit in units for job in unit.before}.union(copy_of)
    units += [
        _Unit([number], lines=job.num_calls, resident=job.resident)
        for number, job in enumerate(jobs)
        if job.role is CallRole.CANDIDATE and number not in awaited
    ]
    return units


def _knot_unit(
    copies: Sequence[Copy],
    waits: Mapping[Copy, frozenset[Copy]],
    both: Mapping[Copy, tuple[int, int]],
    jobs: Sequence[Job],
    room_mb: Mapping[str, float],
) -> _Unit:
    """*both* are the candidates' and the aggregator's job of a copy."""
    place = {copy: number for number, copy in enumerate(copies)}
    turns = [both[copy] for copy in copies]
    knot = Knot(
        copies=tuple(copies),
        needs=tuple(sum(1 << place[other] for other in waits[copy] | {copy} if other in place) for copy in copies),
        memory_mb=tuple(jobs[candidate].memory_mb for candidate, _ in turns),
        room_mb=tuple(room_mb[device] for _, device in copies),
    )
    own: list[int] = []
    for visited, closed in closings(knot, visiting_order(knot)):
        own += [turns[visited][0], *(turns[other][1] for other in closed)]
    lines = sum(jobs[aggregator].num_calls for _, aggregator in turns)
    return _Unit(own, lines=lines, resident=any(jobs[candidate].resident for candidate, _ in turns))


def _urgency(unit: _Unit, *, longest_first: bool) -> tuple[bool, float]:
    return not unit.resident, -unit.seconds if longest_first else unit.seconds / max(1, unit.lines)


def _johnson(jobs: Sequence[Job]) -> Callable[[int], tuple[float, ...]]:
    def key(number: int) -> tuple[float, ...]:
        job = jobs[number]
        return (0, job.load_s, -job.seconds, number) if job.load_s <= job.seconds else (1, -job.seconds, job.load_s, number)

    return key


def _longest(jobs: Sequence[Job]) -> Callable[[int], tuple[float, ...]]:
    return lambda number: (-jobs[number].cost_s, number)
