"""What is loaded and evicted for each turn of an order. Pure.

When memory is short, who is needed last in the rest of the order leaves first (Belady 1966; Read-ME does the same with the
routes it knows ahead). Two refinements: who is open, that is loaded by this plan and needed again, leaves only when nobody
else is there, so that no second load is caused by what somebody else had loaded; and of those that are needed no more the
one that was idle longest leaves, so that the load can begin early.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.batch.host import Device, Host
from orchestrator.batch.jobs import Job
from orchestrator.batch.plan import Load, Reload

_NEVER = 1 << 60


@dataclass(frozen=True, slots=True)
class Residency:
    """The loads of an order, by place in it, and those among them that are a server's second."""

    loads: Mapping[int, Load]
    reloads: tuple[Reload, ...]


def plan_loads(jobs: Sequence[Job], host: Host) -> Residency:
    """*jobs* in the order of their turns. Every server of theirs fits its device."""
    loads: dict[int, Load] = {}
    reloads: list[Reload] = []
    for device in host.devices:
        turns = [number for number, job in enumerate(jobs) if job.copy and job.copy[1] == device.id]
        _OneDevice(device, host, jobs, turns).plan(loads, reloads)
    return Residency(loads, tuple(sorted(reloads, key=lambda reload: reload.turn)))


class _OneDevice:
    """Goes through the turns of one device and keeps what is loaded."""

    def __init__(self, device: Device, host: Host, jobs: Sequence[Job], turns: Sequence[int]) -> None:
        self._device, self._host, self._jobs = device, host, jobs
        self._uses: dict[str, list[int]] = {}
        for turn in turns:
            self._uses.setdefault(self._server(turn), []).append(turn)
        self._turns = turns
        self._resident: dict[str, None] = dict.fromkeys(device.resident)
        self._evicted_for: dict[str, int] = {}
        self._loaded: set[str] = set()

    def plan(self, loads: dict[int, Load], reloads: list[Reload]) -> None:
        for turn in self._turns:
            server = self._server(turn)
            if server in self._resident:
                continue
            evict = self._victims(turn)
            after = sorted(used for victim in evict for used in self._uses.get(victim, ()) if used < turn)
            loads[turn] = Load(tuple(evict), tuple(after))
            if any(used < turn for used in self._uses[server]):
                reloads.append(self._reload(turn, server))
            for victim in evict:
                del self._resident[victim]
                self._evicted_for[victim] = turn
            self._resident[server] = None
            self._loaded.add(server)

    def _server(self, turn: int) -> str:
        copy = self._jobs[turn].copy
        assert copy is not None  # noqa: S101 - turns of a device have one
        return copy[0]

    def _victims(self, turn: int) -> list[str]:
        """Who leaves for the load of *turn*, first to last."""
        missing = self._memory(self._server(turn)) + sum(map(self._memory, self._resident)) - self._device.memory_mb
        victims: list[str] = []
        for server in sorted((s for s in self._resident if s not in self._host.pinned), key=lambda s: self._worth(s, turn)):
            if missing <= 0:
                break
            victims.append(server)
            missing -= self._memory(server)
        # A large one that came late may have made room enough: then the small ones before it can stay.
        for server in reversed(victims):
            if missing + self._memory(server) <= 0:
                victims.remove(server)
                missing += self._memory(server)
        return victims

    def _worth(self, server: str, turn: int) -> tuple[bool, int, int, str]:
        uses = self._uses.get(server, [])
        next_use = next((used for used in uses if used > turn), _NEVER)
        last_use = max((used for used in uses if used < turn), default=-1)
        is_open = next_use < _NEVER and (server in self._loaded or last_use >= 0)
        return is_open, -next_use, last_use, server

    def _memory(self, server: str) -> float:
        return self._host.servers[server].memory_mb

    def _reload(self, turn: int, server: str) -> Reload:
        evicted_for = self._evicted_for[server]
        before = max(used for used in self._uses[server] if used < turn)
        others = dict.fromkeys(self._server(used) for used in self._turns if before < used < turn)
        why = (
            f"{server} waits for candidates of {', '.join(others)} before it can aggregate, and beside these"
            f" the {self._device.memory_mb:,.0f} MB of {self._device.id} cannot hold its {self._memory(server):,.0f} MB"
        )
        return Reload(turn, server, self._device.id, evicted_for, why)
