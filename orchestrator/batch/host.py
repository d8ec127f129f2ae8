"""The machine that a batch is planned for, and what runs there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from domain.errors import InvalidRequest
from domain.plan import CallRole


@dataclass(frozen=True, slots=True)
class Server:
    """What is loaded as one: a model's process, with the LoRA adapters that share it."""

    id: str
    memory_mb: float
    load_s: float
    """Measured seconds until it answers: a start when it is gone, a wake when it sleeps."""
    devices: frozenset[str] | None = None
    """Where it may be loaded, by id; None: on any."""

    def may_use(self, device: Device) -> bool:
        return self.devices is None or device.id in self.devices


@dataclass(frozen=True, slots=True)
class BatchExpert:
    """One expert as a plan sees it."""

    id: str
    call_s: float
    """Seconds that one more call adds to its bucket, at the concurrency of a bucket: one over the calls a second."""
    server: str | None = None
    """None: it runs elsewhere (a provider, this process) and needs neither memory nor a load."""
    aggregation_s: float | None = None
    """The same as ``call_s`` for a call as aggregator, whose prompts are longer; None: as ``call_s``."""

    def seconds(self, role: CallRole) -> float:
        return self.aggregation_s if role is CallRole.AGGREGATOR and self.aggregation_s is not None else self.call_s


@dataclass(frozen=True, slots=True)
class Device:
    """One pool of memory with the compute beside it: a GPU, or a host's processors."""

    id: str
    memory_mb: float
    """For servers."""
    num_slots: int = 1
    """Servers that work at the same time without slowing each other down; others may be loaded and idle."""
    resident: tuple[str, ...] = ()
    """Servers that are loaded there now."""


@dataclass(frozen=True, slots=True)
class Host:
    """Raises ``InvalidRequest`` when the parts do not fit together."""

    devices: tuple[Device, ...]
    servers: Mapping[str, Server] = field(default_factory=dict)
    experts: Mapping[str, BatchExpert] = field(default_factory=dict)
    pinned: frozenset[str] = frozenset()
    """Servers that stay loaded where they are, whether the batch needs them or not."""

    def __post_init__(self) -> None:
        for expert in self.experts.values():
            if expert.server is not None and expert.server not in self.servers:
                raise InvalidRequest(f"expert {expert.id!r} is said to live on server {expert.server!r}, which is not described")
            if min(expert.seconds(role) for role in CallRole) < 0:
                raise InvalidRequest(f"expert {expert.id!r}: the seconds of a call cannot be negative")
        for server in self.servers.values():
            if server.memory_mb < 0 or server.load_s < 0:
                raise InvalidRequest(f"server {server.id!r}: memory and seconds to load cannot be negative")
        if len({device.id for device in self.devices}) < len(self.devices):
            raise InvalidRequest("two devices of the host have the same id")
        for device in self.devices:
            if device.memory_mb < 0 or device.num_slots < 1:
                raise InvalidRequest(f"device {device.id!r} needs one slot at least, and memory that is not negative")
            if unknown := [server for server in device.resident if server not in self.servers]:
                raise InvalidRequest(f"server {unknown[0]!r} is said to be loaded on {device.id!r}, and is not described")
            if wrong := [server for server in device.resident if not self.servers[server].may_use(device)]:
                raise InvalidRequest(f"server {wrong[0]!r} is said to be loaded on {device.id!r}, and may not be there")

    def room_mb(self, device: Device) -> float:
        """Memory of *device* beside what is pinned there."""
        return device.memory_mb - sum(self.servers[server].memory_mb for server in device.resident if server in self.pinned)

    def fits(self, server: Server, device: Device) -> bool:
        """Whether *server* can be loaded on *device* at all; one that is there already fits."""
        return server.may_use(device) and (server.id in device.resident or server.memory_mb <= self.room_mb(device))

    def obstacle(self, expert_id: str) -> str | None:
        """Why no call of this expert can be made on this host; None when there is no reason.

        Raises ``InvalidRequest`` for an expert that is not described.
        """
        expert = self.experts.get(expert_id)
        if expert is None:
            raise InvalidRequest(f"expert {expert_id!r} was routed to, but the host's description does not have it")
        if expert.server is None:
            return None
        server = self.servers[expert.server]
        if any(self.fits(server, device) for device in self.devices):
            return None
        most = max((self.room_mb(device) for device in self.devices if server.may_use(device)), default=0.0)
        where = "no device" if server.devices is None else f"none of its devices ({', '.join(sorted(server.devices))})"
        return f"its server {server.id!r} needs {server.memory_mb:,.0f} MB, and {where} has more than {most:,.0f} MB for it"
