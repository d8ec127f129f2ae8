"""Batches and hosts for tests of planning, small enough to read or drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from orchestrator.batch.host import BatchExpert, Device, Host, Server
from orchestrator.batch.plan import BatchPlan
from orchestrator.batch.progress import CallState, Progress
from orchestrator.batch.routes import RouteTable, RouteTableBuilder

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For properties of whole plans: a busy machine may take its time."""

Line = tuple[Sequence[str], str | None]
"""Candidates and aggregator."""


def table_of(*lines: Line) -> RouteTable:
    builder = RouteTableBuilder()
    for candidates, aggregator in lines:
        builder.add(candidates, aggregator)
    return builder.build()


def host_of(
    experts: Iterable[str],
    *,
    memory_mb: float = 2,
    resident: Sequence[str] = (),
    load_s: float = 10,
    call_s: Mapping[str, float] | None = None,
    sizes: Mapping[str, float] | None = None,
    num_slots: int = 1,
    num_devices: int = 1,
) -> Host:
    """Every expert on a server of its own with its own name and 1 MB, on devices "d0", "d1" … with room for two."""
    names = list(experts)
    return Host(
        devices=tuple(Device(f"d{i}", memory_mb, num_slots, tuple(resident) if i == 0 else ()) for i in range(num_devices)),
        servers={name: Server(name, (sizes or {}).get(name, 1), load_s) for name in names},
        experts={name: BatchExpert(name, (call_s or {}).get(name, 1), name) for name in names},
    )


def turns_of(plan: BatchPlan) -> list[str]:
    """Whose turn is when: "a" for candidates, "a+" for aggregations."""
    return [f"{turn.server or turn.buckets[0].expert_id}{'+' if turn.role == 'aggregator' else ''}" for turn in plan.turns]


@st.composite
def batches(draw: st.DrawFn, *, max_servers: int = 5, max_lines: int = 10, max_devices: int = 1) -> tuple[RouteTable, Host]:
    """A table and a host that has room for the two largest servers or just for the largest. Nothing is loaded.

    Experts share servers; some servers may not be everywhere; some experts run elsewhere; an aggregator may be a candidate too, of
    the same line even.
    """
    num_servers, num_devices = draw(st.integers(1, max_servers)), draw(st.integers(1, max_devices))
    devices = [f"d{i}" for i in range(num_devices)]
    places_of = st.none() | st.frozensets(st.sampled_from(devices), min_size=1)
    servers = {
        f"s{i}": Server(f"s{i}", draw(st.integers(1, 4)), draw(st.sampled_from([1.0, 10.0])), draw(places_of)) for i in range(num_servers)
    }
    places = [f"s{i}" for i in range(num_servers)] + draw(st.lists(st.sampled_from([*servers, None]), max_size=2))
    seconds = st.sampled_from([0.0, 0.1, 1.0, 7.0])
    experts = {f"e{i}": BatchExpert(f"e{i}", draw(seconds), place, draw(st.none() | seconds)) for i, place in enumerate(places)}
    some = st.sampled_from(list(experts))
    lines = draw(st.lists(st.tuples(st.lists(some, min_size=1, max_size=3), st.none() | some), min_size=1, max_size=max_lines))
    sizes = sorted(server.memory_mb for server in servers.values())
    room = draw(st.sampled_from([sizes[-1], sum(sizes[-2:]), sum(sizes[-2:]) + 1, sum(sizes)]))
    num_slots = draw(st.integers(1, 2))
    return table_of(*lines), Host(tuple(Device(device, room, num_slots) for device in devices), servers, experts)


def loaded_before(draw: st.DrawFn, host: Host) -> Host:
    """*host* with some servers loaded, no more than its memory holds."""
    devices = []
    for device in host.devices:
        resident, left = [], device.memory_mb
        for server in draw(st.permutations(list(host.servers))):
            if host.servers[server].memory_mb <= left and host.servers[server].may_use(device) and draw(st.booleans()):
                resident.append(server)
                left -= host.servers[server].memory_mb
        devices.append(Device(device.id, device.memory_mb, device.num_slots, tuple(resident)))
    return Host(tuple(devices), host.servers, host.experts)


@st.composite
def begun_batches(draw: st.DrawFn, *, max_devices: int = 2) -> tuple[RouteTable, Host, Progress]:
    """A batch in the middle: some servers are loaded, some calls are settled."""
    table, host = draw(batches(max_devices=max_devices))
    progress = Progress(table)
    for call in range(table.num_calls):
        progress.settle(call, draw(st.sampled_from(CallState)))
    return table, loaded_before(draw, host), progress


def fewest_loads(plan: BatchPlan, host: Host) -> int:
    """The fewest loads with which the buckets of *plan*, on its only device, can be run in any order: by trying them all."""
    (device,) = host.devices
    table, buckets = plan.table, [(turn.server, bucket) for turn in plan.turns for bucket in turn.buckets]
    holder = {call: number for number, (_, bucket) in enumerate(buckets) for call in bucket.calls}
    needs: list[set[int]] = [set() for _ in buckets]
    for line in range(table.num_lines):
        aggregator = table.aggregator(line)
        if aggregator is not None and aggregator in holder:
            needs[holder[aggregator]] |= {holder[call] for call in table.candidates(line) if call in holder}

    def run(done: frozenset[int], resident: frozenset[str]) -> frozenset[int]:
        while True:
            more = {n for n, (server, _) in enumerate(buckets) if (server is None or server in resident) and needs[n] <= done} - done
            if not more:
                return done
            done |= more

    start = frozenset(device.resident)
    states, num_loads = {(run(frozenset(), start), start)}, 0
    seen = set(states)
    while all(len(done) < len(buckets) for done, _ in states):
        following = set()
        for done, resident in states:
            for server in {server for n, (server, _) in enumerate(buckets) if n not in done and server is not None} - resident:
                for size in range(len(resident) + 1):
                    for kept in combinations(sorted(resident), size):
                        loaded = frozenset({*kept, server})
                        if sum(host.servers[name].memory_mb for name in loaded) <= device.memory_mb:
                            following.add((run(done, loaded), loaded))
        states, num_loads = following - seen, num_loads + 1
        seen |= states
    return num_loads
