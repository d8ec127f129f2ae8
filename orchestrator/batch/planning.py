"""From the routed lines of a batch to its plan. Pure.

Route first, then group by expert (Symbolic-MoE), place by longest processing time, order so that each server is loaded
once, evict by what the plan knows (Read-ME), and predict. 100,000 lines take about a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.batch.buckets import Cut, Demand, cut, demand, due_calls
from orchestrator.batch.host import Host
from orchestrator.batch.jobs import Job, jobs_of
from orchestrator.batch.ordering import order_jobs
from orchestrator.batch.placement import Share, Work, place
from orchestrator.batch.plan import BatchPlan, Load, Turn
from orchestrator.batch.progress import Progress
from orchestrator.batch.residency import plan_loads
from orchestrator.batch.routes import RouteTable
from orchestrator.batch.timeline import predict


def plan_batch(table: RouteTable, host: Host, progress: Progress | None = None) -> BatchPlan:
    """The plan for what *progress* has not settled; for everything without one.

    Same input, same plan. Experts whose server fits no device are left out, and named in ``impossible``. Raises
    ``InvalidRequest`` when *host* does not describe an expert of the table.

    Two orders are tried, lines finished early and longest work first; the one with fewer loads is taken, then the shorter.
    """
    obstacles = {expert: host.obstacle(expert) for expert in table.expert_ids}
    impossible = {expert: why for expert, why in obstacles.items() if why is not None}
    due = due_calls(table, progress, {number for number, expert in enumerate(table.expert_ids) if expert in impossible})
    wanted = demand(table, due)
    seconds = {(expert, role): host.experts[expert].seconds(role) for expert, role in wanted}
    parts = cut(table, due, wanted, _shares(wanted, host), seconds)
    jobs = jobs_of(parts, host)
    room_mb = {device.id: host.room_mb(device) for device in host.devices}
    ground = _Groundwork(table, host, impossible, parts, jobs)
    plans = [ground.in_order(order_jobs(jobs, room_mb, longest_first=longest_first)) for longest_first in (False, True)]
    return min(plans, key=lambda plan: (plan.num_loads, plan.prediction.total_s))


def _shares(wanted: Demand, host: Host) -> dict[str, tuple[Share, ...]]:
    """Of every expert that is asked, where its calls go: where its server does."""
    seconds: dict[str, float] = {}
    calls: dict[str, int] = {}
    for (expert, role), num_calls in wanted.items():
        if (server := host.experts[expert].server) is not None:
            seconds[server] = seconds.get(server, 0.0) + num_calls * host.experts[expert].seconds(role)
            calls[server] = calls.get(server, 0) + num_calls
    placed = place({server: Work(seconds[server], calls[server]) for server in seconds}, host)
    return {expert: placed.get(host.experts[expert].server or "", (Share(None),)) for expert, _ in wanted}


@dataclass(frozen=True, slots=True)
class _Groundwork:
    """Everything that is decided before the order."""

    table: RouteTable
    host: Host
    impossible: Mapping[str, str]
    parts: Cut
    jobs: Sequence[Job]

    def in_order(self, order: Sequence[int]) -> BatchPlan:
        place_of = {job: number for number, job in enumerate(order)}
        ordered = [self.jobs[job] for job in order]
        residency = plan_loads(ordered, self.host)
        turns = tuple(self._turn(number, job, place_of, residency.loads.get(number)) for number, job in enumerate(ordered))
        slots = {device.id: device.num_slots for device in self.host.devices}
        return BatchPlan(
            table=self.table,
            turns=turns,
            slots=slots,
            resident=frozenset((server, device.id) for device in self.host.devices for server in device.resident),
            impossible=self.impossible,
            reloads=residency.reloads,
            prediction=predict(turns, slots, {server.id: server.load_s for server in self.host.servers.values()}),
        )

    def _turn(self, number: int, job: Job, place_of: Mapping[int, int], load: Load | None) -> Turn:
        server, device = job.copy or (None, None)
        buckets = tuple(self.parts.buckets[bucket] for bucket in job.buckets)
        return Turn(number, server, device, job.role, buckets, tuple(sorted(place_of[needed] for needed in job.needs)), load)
