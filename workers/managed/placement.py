"""From managed experts to servers: who shares one, how each is started, and whose memory it takes. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from domain.errors import InvalidRequest
from domain.experts import ServingOptions
from workers.residency.servers import ServerSpec
from workers.vllm.command import ServerLaunch

PROCESSORS = "processors"
"""The pool of memory of servers that run on no GPU."""
DEFAULT_UTILIZATION = 0.9
"""Share of its GPUs' memory that a server takes when its card says nothing. vLLM's own default."""
_MAX_SLUG = 64


@dataclass(frozen=True, slots=True)
class Source:
    """One managed expert, with what was read of its files."""

    expert_id: str
    base: str
    """A folder's absolute path, or an id on the hub."""
    context_length: int
    adapter: str | None = None
    """The adapter's folder as an absolute path; None for the base itself."""
    rank: int | None = None
    """The adapter's."""
    memory_mb: float | None = None
    """Declared for its whole server."""
    serving: ServingOptions = ServingOptions()


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Memory that there is for servers, in MB."""

    processors_mb: float
    gpu_mb: float | None = None
    """Of each GPU; None when it is not known."""
    assumed_mb: float = 3600.0
    """What a server on the processors with 1 GB for keys and values needs when its card says nothing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured of one server, in seconds and MB; None when it was not seen yet."""

    load_s: float | None = None
    sleep_s: float | None = None
    wake_s: float | None = None
    memory_mb: float | None = None
    """Of the machine's memory, when it became ready: without most of its keys and values."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where an expert lives."""

    server_id: str
    model: str
    """What its calls name as ``model``."""
    adapter: str | None = None
    """The folder of the adapter that has to be loaded for it."""


@dataclass(frozen=True, slots=True)
class PlacedServer:
    """One server, as it is to be."""

    launch: ServerLaunch
    spec: ServerSpec
    pool: str
    """Whose memory it takes: ``processors``, or the GPUs as in ``gpu 0,1``."""
    pool_mb: float
    pinned: bool
    expert_ids: tuple[str, ...]

    @property
    def id(self) -> str:
        return self.launch.server_id


@dataclass(frozen=True, slots=True)
class Placement:
    """All servers, where each expert lives, and why some live nowhere."""

    servers: Mapping[str, PlacedServer] = field(default_factory=dict)
    seats: Mapping[str, Seat] = field(default_factory=dict)
    obstacles: Mapping[str, str] = field(default_factory=dict)
    """Expert id to the reason."""


@dataclass(slots=True)
class _Group:
    """Experts that share one server."""

    server_id: str
    options: ServingOptions
    context_length: int
    base: str
    members: list[Source]


def place(sources: Iterable[Source], memory: HostMemory, seen: Mapping[str, Seen], *, taken: Iterable[str] = ()) -> Placement:
    """Servers for *sources*. *seen* is what was measured, by ``launch_key``; *taken* are ids of experts that live elsewhere, which no
    server may be named after."""
    ordered = sorted(sources, key=lambda source: source.expert_id)
    obstacles: dict[str, str] = {}
    groups = _grouped(ordered, {*taken, *(source.expert_id for source in ordered)}, obstacles)
    servers: dict[str, PlacedServer] = {}
    for group in groups:
        try:
            server = _server(group, memory, seen)
            _check_gpus(server, servers.values())
        except InvalidRequest as error:
            obstacles |= {source.expert_id: error.message for source in group.members}
        else:
            servers[server.id] = server
    seats = {
        source.expert_id: Seat(group.server_id, source.expert_id, source.adapter)
        if source.adapter is not None
        else Seat(group.server_id, group.server_id)
        for group in groups
        if group.server_id in servers
        for source in group.members
    }
    return Placement(servers, seats, obstacles)


def launch_key(launch: ServerLaunch) -> str:
    """Equal for launches whose servers take equal time and memory."""
    return hashlib.sha256(repr(launch).encode()).hexdigest()[:16]


# --- who shares a server ---------------------------------------------------------------------------------------------


def _grouped(ordered: Sequence[Source], taken: set[str], obstacles: dict[str, str]) -> list[_Group]:
    """Bases first: equal ones share a server, named after the first. Then adapters, each with the base that has its options."""
    groups: list[_Group] = []
    for source in ordered:
        if source.adapter is not None:
            continue
        twin = next((group for group in groups if _is_twin(group, source)), None)
        if twin is None:
            groups.append(_Group(source.expert_id, source.serving, source.context_length, source.base, [source]))
        else:
            twin.members.append(source)
    for source in ordered:
        if source.adapter is None:
            continue
        on_base = [group for group in groups if group.base == source.base]
        suited = next((group for group in on_base if _suits(source, group)), None)
        if suited is not None:
            suited.members.append(source)
            suited.context_length = max(suited.context_length, 0 if _has_base(suited) else source.context_length)
            if source.serving != ServingOptions() and not _has_base(suited):
                suited.options = source.serving
        elif on_base:
            obstacles[source.expert_id] = (
                f"it is an adapter on the server {on_base[0].server_id!r}, which is started with other options: leave out its `serving` "
                "(all but max_lora_rank), or write the same there"
            )
        else:
            server_id = _slug(source.base, taken)
            taken.add(server_id)
            groups.append(_Group(server_id, source.serving, source.context_length, source.base, [source]))
    return groups


def _is_twin(group: _Group, source: Source) -> bool:
    return (
        group.base == source.base
        and group.context_length == source.context_length
        and _launched(group.options) == _launched(source.serving)
    )


def _suits(source: Source, group: _Group) -> bool:
    """An adapter says nothing about the server, or the same; where only adapters are, the first that says something counts."""
    said, there = _launched(source.serving), _launched(group.options)
    silent = ServingOptions()
    return said in (silent, there) or (there == silent and not _has_base(group))


def _has_base(group: _Group) -> bool:
    return group.members[0].adapter is None


def _launched(options: ServingOptions) -> ServingOptions:
    """The part that concerns the server as a whole."""
    return replace(options, max_lora_rank=None, pinned=False, asleep_mb=None, load_s=None)


def _slug(base: str, taken: set[str]) -> str:
    """A server's id after the base's folder, which no expert has."""
    last = base.rstrip("/").rpartition("/")[2].lower()
    stem = re.sub(r"[^a-z0-9_-]+", "-", last).strip("-_")[:_MAX_SLUG] or "base"
    candidates = (stem, f"{stem}-base", *(f"{stem}-base-{number}" for number in range(2, len(taken) + 3)))
    return next(candidate for candidate in candidates if candidate not in taken)


# --- one server ------------------------------------------------------------------------------------------------------


def _server(group: _Group, memory: HostMemory, seen: Mapping[str, Seen]) -> PlacedServer:
    """Raises ``InvalidRequest`` when it cannot be started like that."""
    options = group.options
    declared_mb = group.members[0].memory_mb if _has_base(group) else None
    if declared_mb is None:
        declared_mb = max((source.memory_mb for source in group.members if source.memory_mb is not None), default=None)
    pool, pool_mb, utilization = PROCESSORS, memory.processors_mb, DEFAULT_UTILIZATION
    if options.gpus:
        pool = f"gpu {','.join(sorted(options.gpus))}"
        pool_mb, utilization = _gpus(group, memory, declared_mb)
    launch = ServerLaunch(
        group.server_id,
        group.base,
        group.server_id,
        dtype=options.dtype,
        max_model_len=group.context_length,
        tensor_parallel=options.tensor_parallel,
        gpus=options.gpus,
        gpu_memory_utilization=utilization,
        kv_cache_gb=options.kv_cache_gb,
        cpu_threads=options.cpu_threads,
        max_lora_rank=_rank(group),
        max_loras=options.max_loras,
        enforce_eager=options.enforce_eager,
        sleep_mode=options.sleep_mode,
        extra_arguments=options.extra_arguments,
    )
    measured = seen.get(launch_key(launch), Seen())
    spec = _spec(launch, group, measured, _needed_mb(launch, memory, measured, declared_mb, pool_mb))
    pinned = any(source.serving.pinned for source in group.members)
    return PlacedServer(launch, spec, pool, pool_mb, pinned, tuple(source.expert_id for source in group.members))


def _gpus(group: _Group, memory: HostMemory, declared_mb: float | None) -> tuple[float, float]:
    """Memory of its GPUs, and the share of it that the server takes."""
    if memory.gpu_mb is None:
        msg = f"server {group.server_id!r} is to run on GPUs, and their memory is not known: set CONSILIUM_GPU_MEMORY_MB"
        raise InvalidRequest(msg, param="gpus")
    pool_mb = memory.gpu_mb * len(group.options.gpus)
    if declared_mb is not None and declared_mb > pool_mb:
        msg = f"server {group.server_id!r} needs {declared_mb:.10g} MB, and its GPUs have {pool_mb:.10g} MB together"
        raise InvalidRequest(msg, param="memory_mb")
    if group.options.gpu_memory_utilization is not None:
        return pool_mb, group.options.gpu_memory_utilization
    # Four digits are enough for a share, and stand on a command line.
    return pool_mb, DEFAULT_UTILIZATION if declared_mb is None else max(0.0001, round(declared_mb / pool_mb, 4))


def _rank(group: _Group) -> int | None:
    ranks = [source.rank for source in group.members if source.rank is not None]
    if group.options.max_lora_rank is not None:
        ranks.append(group.options.max_lora_rank)
    return max(ranks, default=None)


def _needed_mb(launch: ServerLaunch, memory: HostMemory, measured: Seen, declared_mb: float | None, pool_mb: float) -> float:
    if launch.on_gpu:  # vLLM takes its share, whatever the model needs
        return max(declared_mb or 0.0, launch.gpu_memory_utilization * pool_mb)
    if declared_mb is not None:
        return declared_mb
    if measured.memory_mb is not None:  # keys and values are in it only as far as they were written
        return measured.memory_mb + 1024.0 * launch.kv_cache_gb
    return memory.assumed_mb + 1024.0 * (launch.kv_cache_gb - 1)


def _spec(launch: ServerLaunch, group: _Group, measured: Seen, memory_mb: float) -> ServerSpec:
    """What was measured counts before what is declared, and that before what is assumed."""
    spec = ServerSpec(launch.server_id, memory_mb)
    declared = next((source.serving for source in group.members if source.serving.load_s is not None), group.options)
    asleep_mb = group.options.asleep_mb if launch.frees_memory_asleep else None
    return replace(
        spec,
        asleep_mb=None if asleep_mb is None else min(asleep_mb, memory_mb),
        load_s=_first(measured.load_s, declared.load_s, spec.load_s),
        sleep_s=_first(measured.sleep_s, spec.sleep_s),
        wake_s=_first(measured.wake_s, spec.wake_s),
    )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _check_gpus(server: PlacedServer, others: Iterable[PlacedServer]) -> None:
    """Raise ``InvalidRequest`` when the server has some of another's GPUs, and not just these: their memory would be counted twice."""
    mine = set(server.launch.gpus)
    for other in others:
        theirs = set(other.launch.gpus)
        if mine & theirs and mine != theirs:
            msg = (
                f"server {server.id!r} is to run on the GPUs {', '.join(sorted(mine))} and {other.id!r} on {', '.join(sorted(theirs))}: "
                "two servers must have the same GPUs, or none in common"
            )
            raise InvalidRequest(msg, param="gpus")
