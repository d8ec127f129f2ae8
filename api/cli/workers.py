"""``consilium workers``: the vLLM servers that a running service manages, and a simulation of who gets the memory of a host."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.connection import Server
from api.cli.failures import CommandFailed, bad_input
from api.cli.options import JsonFlag, connected, names
from api.cli.output import cell, note, percent, print_json, show, table

if TYPE_CHECKING:
    from api.cli.client import ApiClient
    from api.cli.residency_input import Route, Servers
    from workers.residency.optimum import Optimum
    from workers.residency.servers import ServerSpec
    from workers.residency.simulator import Replay

app = typer.Typer(help="The servers that experts are loaded on.", no_args_is_help=True)

PATH = "/admin/api/workers"
_MAX_SERVERS = 1000
"""Servers shown; a host holds a handful, and a registry hundreds."""

ServerName = Annotated[str, typer.Argument(metavar="SERVER", help="The server's id, or that of an expert on it.")]

_NUM_CAPACITIES = 4
"""Sizes of the host that are tried when none is given, from the smallest that works to one where everything fits."""


@app.callback()
def _group() -> None:
    """The servers that experts are loaded on."""


@app.command("list")
@connected
async def list_workers(server: Server, as_json: JsonFlag = False) -> None:
    """List the managed vLLM servers: who lives on them, how they stand, and the memory that they hold."""
    async with _running(server) as client:
        found = await client.get(PATH, limit=_MAX_SERVERS)
    if as_json:
        print_json(found)
        return
    numbers = ("memory MB", "held MB", "serving", "waiting", "loads", "load s")
    shown = table("server", "state", "experts", "on", *numbers, "adapters", right=numbers)
    for row in found["data"]:
        figures = [f"{row['memory_mb']:,.0f}", f"{row['held_mb']:,.0f}", row["num_serving"], row["num_waiting"], row["num_loads"]]
        shown.add_row(
            *map(cell, (row["id"], _state(row), row["experts"], row["pool"], *figures, f"{row['times']['load_s']:.1f}", row["adapters"])),
            style="red" if row["state"] == "failed" else None,
        )
    show(shown)
    for pool in found["pools"]:
        note(f"{pool['id']}: {pool['held_mb']:,.0f} of {pool['memory_mb']:,.0f} MB held, policy {pool['policy']}")
    for row in found["data"]:
        if row["state"] == "failed":
            note(f"{row['id']}: {row['reason'].splitlines()[0]} (more with 'consilium workers logs {row['id']}')")
    for expert, why in found["unplaced"].items():
        note(f"{expert} has no server: {why}")
    if found["trouble"]:
        note(found["trouble"])
    if not found["data"] and not found["unplaced"]:
        note("no expert needs a managed server: give one the backend vllm, or serve the embedded ones with CONSILIUM_ENGINE=vllm")


@app.command("start")
@connected
async def start_worker(server: Server, name: ServerName, as_json: JsonFlag = False) -> None:
    """Load a server now; others make room for it as for a request."""
    await _change(server, name, "start", as_json=as_json)


@app.command("stop")
@connected
async def stop_worker(server: Server, name: ServerName, as_json: JsonFlag = False) -> None:
    """Stop a server as soon as it is idle; the next request for it loads it again."""
    await _change(server, name, "stop", as_json=as_json)


@app.command("sleep")
@connected
async def sleep_worker(server: Server, name: ServerName, as_json: JsonFlag = False) -> None:
    """Put a server to sleep as soon as it is idle: it gives most of its memory back, and wakes quickly."""
    await _change(server, name, "sleep", as_json=as_json)


@app.command("wake")
@connected
async def wake_worker(server: Server, name: ServerName, as_json: JsonFlag = False) -> None:
    """Wake a server."""
    await _change(server, name, "wake", as_json=as_json)


@app.command("logs")
@connected
async def worker_logs(
    server: Server,
    name: ServerName,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="The last so many.")] = 200,
    as_json: JsonFlag = False,
) -> None:
    """Print the last lines that a server wrote, those of earlier starts included."""
    from api.cli.client import at

    async with _running(server) as client:
        told = await client.get(f"{at(PATH, name)}/logs", lines=lines)
    if as_json:
        print_json(told)
        return
    for line in told["lines"]:
        print(line)


@app.command()
@connected
async def simulate(
    server: Server,
    *,
    routes: Annotated[
        Path | None,
        typer.Argument(
            metavar="[ROUTES]",
            help='JSONL of traces or {"experts": [...]} lines, one request a line; - for standard input; default the stored traces.',
        ),
    ] = None,
    servers: Annotated[
        Path | None,
        typer.Option(help="YAML: servers, by id, with memory_mb and optionally asleep_mb, load_s, sleep_s, wake_s, experts."),
    ] = None,
    memory: Annotated[
        list[str] | None, typer.Option(metavar="ID=MB", help="What one expert's server needs; default what the experts declare.")
    ] = None,
    capacity: Annotated[list[float] | None, typer.Option(metavar="MB", help="Memory of the host; may be given several times.")] = None,
    policy: Annotated[list[str] | None, typer.Option(help="lru, belady or cost; may be given several times; default all.")] = None,
    pin: Annotated[str | None, typer.Option(help="Experts or servers that always stay loaded, separated by commas.")] = None,
    load_s: Annotated[float, typer.Option(min=0, help="Seconds of a load where the servers' file says nothing.")] = 30.0,
    limit: Annotated[int, typer.Option(min=1, help="Of the stored traces the newest so many.")] = 10_000,
    as_json: JsonFlag = False,
) -> None:
    """Replay routes against sizes of memory and policies: hits, loads, time lost, and the fewest loads there could be."""
    from workers.residency.optimum import optimum
    from workers.residency.policy import POLICIES, policy_named
    from workers.residency.simulator import replay

    policies = [policy_named(name).name for name in policy or POLICIES]
    replayed, known = await _input(server, routes, servers, memory or [], load_s=load_s, limit=limit)
    uses = known.uses(replayed)
    if not uses:
        raise bad_input("there is nothing to replay: no request called an expert that needs memory here")
    pinned = tuple(dict.fromkeys(known.id_of(name) for name in names(pin) or []))
    capacities = capacity or _capacities({*uses, *pinned}, pinned, known.specs)
    results = [replay(uses, known.specs, host_mb=host_mb, policy=name, pinned=pinned) for host_mb in capacities for name in policies]
    fewest = {host_mb: optimum(uses, known.specs, host_mb=host_mb, pinned=pinned) for host_mb in capacities}
    for result in results:
        if result.num_loads == fewest[result.host_mb].num_loads:  # a bound that is reached is the optimum
            fewest[result.host_mb] = dataclasses.replace(fewest[result.host_mb], exact=True)
    if as_json:
        print_json(_document(replayed, known, used={*uses, *pinned}, pinned=pinned, results=results, fewest=fewest))
    else:
        _show(replayed, results, fewest)


async def _change(server: Server, name: str, what: str, *, as_json: bool) -> None:
    from api.cli.client import at

    async with _running(server) as client:
        row = await client.call("POST", f"{at(PATH, name)}/{what}")
    if as_json:
        print_json(row)
    else:
        print(f"{row['id']} is {_state(row)}: {row['reason'].splitlines()[0]}")


@asynccontextmanager
async def _running(server: Server) -> AsyncIterator[ApiClient]:
    """A client of a running service: servers live with it, and one that lived for a command would end with the command."""
    if server.local:
        raise bad_input("managed servers belong to a running service: leave --local out")
    async with server.connect() as client:
        if client.is_local:
            raise CommandFailed("managed servers belong to a running service: start one with 'consilium serve'")
        yield client


def _state(row: Mapping[str, Any]) -> str:
    """The process's state; the residency's where that says more."""
    return str(row["residency"] if row["residency"] == "stuck" else row["state"]) + (" (outdated)" if row["is_outdated"] else "")


async def _input(
    server: Server, file: Path | None, servers: Path | None, memory: Sequence[str], *, load_s: float, limit: int
) -> tuple[list[Route], Servers]:
    """The routes, and the servers of their experts. Asks the service only for what files and options leave open."""
    from api.cli.residency_input import Servers, merged, read_routes, read_servers, route_of, servers_of_cards, unknown_experts, with_memory

    routes = None if file is None else read_routes(file)
    declared = Servers({}, {}) if servers is None else read_servers(servers, load_s=load_s)
    known = with_memory(declared, memory, load_s=load_s)
    if routes is None or unknown_experts(routes, known):
        async with server.connect() as client:
            if routes is None:
                routes = [route_of(row) for row in reversed(await client.rows("/admin/api/traces", max_rows=limit))]
            cards = servers_of_cards(await client.rows("/admin/api/experts"), load_s=load_s)
        known = with_memory(merged(declared, cards), memory, load_s=load_s)
    if missing := unknown_experts(routes, known):
        listed = ", ".join(repr(expert) for expert in missing)
        raise bad_input(
            f"it is not known how much memory {listed} needs: say it with --memory ID=MB, in --servers, or on the expert's card"
        )
    return routes, known


def _capacities(used: set[str], pinned: Sequence[str], specs: Mapping[str, ServerSpec]) -> list[float]:
    held = math.fsum(specs[server_id].memory_mb for server_id in pinned)
    smallest = held + max((specs[server_id].memory_mb for server_id in used - set(pinned)), default=0.0)
    largest = math.fsum(specs[server_id].memory_mb for server_id in used)
    steps = (smallest + (largest - smallest) * step / (_NUM_CAPACITIES - 1) for step in range(_NUM_CAPACITIES))
    return list(dict.fromkeys(float(math.ceil(mb)) for mb in steps))


def _document(
    routes: Sequence[Route],
    known: Servers,
    *,
    used: set[str],
    pinned: Sequence[str],
    results: Sequence[Replay],
    fewest: Mapping[float, Optimum],
) -> dict[str, Any]:
    return {
        "num_requests": len(routes),
        "num_uses": results[0].num_uses,
        "service_s": _service_s(routes),
        "servers": [
            {**dataclasses.asdict(spec), "experts": sorted(expert for expert, on in known.of_expert.items() if on == spec.id)}
            for spec in known.specs.values()
            if spec.id in used
        ],
        "pinned": list(pinned),
        "results": [{**dataclasses.asdict(result), "hit_rate": result.hit_rate} for result in results],
        "fewest_loads": [{"host_mb": host_mb, **dataclasses.asdict(found)} for host_mb, found in fewest.items()],
    }


def _show(routes: Sequence[Route], results: Sequence[Replay], fewest: Mapping[float, Optimum]) -> None:
    service = _service_s(routes)
    sleeps = any(result.num_sleeps for result in results)
    numbers = ["memory MB", "hits", "hit rate", "loads", "fewest", *(["sleeps", "wakes"] if sleeps else []), "stops", "lost s"]
    numbers += [] if service is None else ["of the time"]
    title = f"{len(routes)} requests, {results[0].num_uses} uses of servers"
    shown = table("memory MB", "policy", *numbers[1:], title=title, right=numbers)
    for result in results:
        least = fewest[result.host_mb]
        shown.add_row(
            f"{result.host_mb:,.10g}", cell(result.policy), str(result.num_hits), percent(result.hit_rate), str(result.num_loads),
            f"{'' if least.exact else '≥ '}{least.num_loads}", *([str(result.num_sleeps), str(result.num_wakes)] if sleeps else []),
            str(result.num_stops), f"{result.lost_s:.1f}",
            *([] if service is None else [percent(result.lost_s / (result.lost_s + service) if result.lost_s else 0.0)]),
        )  # fmt: skip
    show(shown)
    note("belady sees the whole trace, the others its past; requests come one after the other")
    if not all(found.exact for found in fewest.values()):
        note("fewest: no policy loads less often; servers of several sizes, or that sleep, may not get by with so few")


def _service_s(routes: Sequence[Route]) -> float | None:
    """How long the requests took without any of this; None when one does not tell."""
    times = [route.service_s for route in routes]
    return None if None in times else math.fsum(time for time in times if time is not None)
