"""The turns of a plan before they have an order: what one copy of a server does in one role. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from domain.plan import CallRole
from orchestrator.batch.buckets import Cut
from orchestrator.batch.host import Host

Copy = tuple[str, str]
"""A server on a device."""


@dataclass(frozen=True, slots=True)
class Job:
    """Buckets of one role on one copy of a server. Jobs are known by their place in a sequence."""

    copy: Copy | None
    """None: it runs elsewhere, and each expert there has jobs of its own."""
    role: CallRole
    buckets: tuple[int, ...]
    seconds: float
    num_calls: int
    needs: frozenset[int] = frozenset()
    """Of aggregators: the candidates' jobs that their lines wait for."""
    load_s: float = 0.0
    """0 where it is loaded already, and elsewhere."""
    memory_mb: float = 0.0
    resident: bool = False

    @property
    def cost_s(self) -> float:
        return self.seconds + self.load_s


def jobs_of(cut: Cut, host: Host) -> list[Job]:
    """The jobs that hold the buckets of *cut*, longest bucket first within each."""
    groups: dict[tuple[object, CallRole], list[int]] = {}
    for bucket in cut.buckets:
        place = (host.experts[bucket.expert_id].server or (bucket.expert_id,), cut.devices[bucket.number])
        groups.setdefault((place, bucket.role), []).append(bucket.number)
    job_of = {bucket: job for job, buckets in enumerate(groups.values()) for bucket in buckets}
    return [_job(buckets, cut, host, job_of) for buckets in groups.values()]


def _job(buckets: Iterable[int], cut: Cut, host: Host, job_of: dict[int, int]) -> Job:
    numbers = tuple(sorted(buckets, key=lambda bucket: (-cut.buckets[bucket].seconds, bucket)))
    first = cut.buckets[numbers[0]]
    seconds, num_calls = sum(cut.buckets[bucket].seconds for bucket in numbers), sum(cut.buckets[bucket].num_calls for bucket in numbers)
    needs = frozenset(job_of[needed] for bucket in numbers for needed in cut.needs[bucket])
    server, device = host.experts[first.expert_id].server, cut.devices[first.number]
    if server is None or device is None:
        return Job(None, first.role, numbers, seconds, num_calls, needs)
    resident = any(known.id == device and server in known.resident for known in host.devices)
    described = host.servers[server]
    return Job(
        (server, device), first.role, numbers, seconds, num_calls, needs,
        load_s=0.0 if resident else described.load_s, memory_mb=described.memory_mb, resident=resident,
    )  # fmt: skip
