"""Which server works on which device: longest processing time first, and a second copy where that pays. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.batch.host import Device, Host


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a server's calls, in (0, 1], and the device that has it; None is elsewhere."""

    device: str | None
    part: float = 1.0


@dataclass(frozen=True, slots=True)
class Work:
    """What a batch asks of one server."""

    seconds: float
    num_calls: int


@dataclass(slots=True)
class _Lane:
    """One slot of a device, and the seconds of work on it by server. Loads count where they are paid."""

    device: Device
    busy_s: float
    work_s: dict[str, float]


def place(work: Mapping[str, Work], host: Host) -> dict[str, tuple[Share, ...]]:
    """The shares of every server of *work*, each of which fits some device. Shares of one server are on different devices.

    1. The server with most seconds goes where it would be done first (Graham 1969: at most 4/3 of the best makespan). Where
       it is loaded already it has no load to pay.
    2. As long as it pays, the fullest slot hands a part of a server to a second copy on a less loaded device, as in
       Least-Loaded Expert Parallelism: as much as makes both end together, when that saves more seconds than the copy's load.
    """
    lanes = [_Lane(device, 0.0, {}) for device in host.devices for _ in range(device.num_slots)]
    for server in sorted(work, key=lambda server: (-work[server].seconds - host.servers[server].load_s, server)):
        able = [lane for lane in lanes if host.fits(host.servers[server], lane.device)]
        lane = min(able, key=lambda lane: lane.busy_s + _load_s(host, server, lane.device))
        lane.busy_s += work[server].seconds + _load_s(host, server, lane.device)
        lane.work_s[server] = work[server].seconds
    # Each round gives a server to a device that had none of it, so this ends.
    while lanes and _spill(lanes, work, host):
        pass
    shares: dict[str, tuple[Share, ...]] = {}
    for server, wanted in work.items():
        holding = [lane for lane in lanes if server in lane.work_s]
        parts = [lane.work_s[server] / wanted.seconds if wanted.seconds else 1.0 for lane in holding]
        shares[server] = tuple(Share(lane.device.id, part) for lane, part in zip(holding, parts, strict=True))
    return shares


def _spill(lanes: list[_Lane], work: Mapping[str, Work], host: Host) -> bool:
    """Hand a part of the fullest lane's longest server to another device; False when that pays for none of its servers."""
    full = max(lanes, key=lambda lane: lane.busy_s)
    for server in sorted(full.work_s, key=lambda server: (-full.work_s[server], server)):
        taken = {lane.device.id for lane in lanes if server in lane.work_s}
        free = [lane for lane in lanes if lane.device.id not in taken and host.fits(host.servers[server], lane.device)]
        if not free:
            continue
        lane = min(free, key=lambda lane: lane.busy_s + _load_s(host, server, lane.device))
        load_s = _load_s(host, server, lane.device)
        handed_s = min((full.busy_s - lane.busy_s - load_s) / 2, full.work_s[server])
        call_s = work[server].seconds / work[server].num_calls
        if handed_s > load_s and call_s <= handed_s <= full.work_s[server] - call_s:
            full.work_s[server] -= handed_s
            full.busy_s -= handed_s
            lane.work_s[server] = handed_s
            lane.busy_s += load_s + handed_s
            return True
    return False


def _load_s(host: Host, server: str, device: Device) -> float:
    return 0.0 if server in device.resident else host.servers[server].load_s
