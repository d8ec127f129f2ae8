"""What a simulation replays: routes from a file or from stored traces, and the servers that the experts live on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from api.cli.failures import bad_input
from api.cli.text_file import read_text
from domain.errors import InvalidRequest
from domain.nearest import did_you_mean
from experts_registry.manifest import parse
from workers.residency.servers import ServerSpec

_ELSEWHERE = frozenset({"litellm"})
"""Backends whose experts take no memory of ours."""


@dataclass(frozen=True, slots=True)
class Route:
    """One request: the experts that it called, in that order, and how long it took, when that is known."""

    experts: tuple[str, ...]
    service_s: float | None = None


class ServerModel(BaseModel):
    """One server of the file."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    memory_mb: float
    asleep_mb: float | None = None
    load_s: float | None = None
    sleep_s: float | None = None
    wake_s: float | None = None
    experts: list[str] = []


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers, and on which of them each expert lives."""

    specs: Mapping[str, ServerSpec]
    of_expert: Mapping[str, str]
    elsewhere: frozenset[str] = frozenset()
    """Experts that need none."""

    def uses(self, routes: Iterable[Route]) -> list[str]:
        """The servers that *routes* need, one after another."""
        return [self.of_expert[expert] for route in routes for expert in route.experts if expert not in self.elsewhere]

    def id_of(self, name: str) -> str:
        """The server that *name* is, or that the expert of this name lives on."""
        if name in self.specs:
            return name
        if name in self.of_expert:
            return self.of_expert[name]
        raise bad_input(f"there is no expert or server {name!r}; {did_you_mean(name, sorted({*self.specs, *self.of_expert}))}")


def read_routes(file: Path) -> list[Route]:
    """The routes of a JSONL *file*, ``-`` for standard input: traces, or objects with ``experts``. Ends the command at a bad line."""
    routes = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            routes.append(route_of(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            where = "standard input" if str(file) == "-" else str(file)
            raise bad_input(f'{where}, line {number}: expected a trace, or an object like {{"experts": ["math", "law"]}}') from error
    return routes


def route_of(row: Mapping[str, Any]) -> Route:
    """One line: a trace with its ``calls``, a row of the list of traces, or ``{"experts": [...], "service_s": ...}``."""
    if isinstance(calls := row.get("calls"), list) and calls:
        experts = [call["expert"] if "expert" in call else call["expert_id"] for call in calls]
    else:
        experts = row["experts"]
    if not isinstance(experts, list) or not all(isinstance(expert, str) for expert in experts):
        raise TypeError("experts must be a list of ids")
    service_s = row.get("service_s")
    if service_s is None and (total_ms := row.get("total_ms", (row.get("timings_ms") or {}).get("total"))) is not None:
        service_s = total_ms / 1000
    return Route(tuple(experts), None if service_s is None else float(service_s))


def read_servers(file: Path, *, load_s: float) -> Servers:
    """The servers of a YAML *file*: ``servers``, by id. Ends the command at the first that cannot be, naming the field."""
    try:
        document = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise bad_input(f"{file} is no valid YAML" + (f", line {mark.line + 1}" if mark else "")) from error
    specs: dict[str, ServerSpec] = {}
    of_expert: dict[str, str] = {}
    if not isinstance(document, dict) or not isinstance(document.get("servers"), dict):
        raise bad_input(f"{file} must be like 'servers: {{math-7b: {{memory_mb: 16000}}}}'")
    for server_id, row in document["servers"].items():
        try:
            model = parse(ServerModel, row)
        except InvalidRequest as error:
            raise bad_input(f"{file}: servers.{server_id}: {error.message}") from error
        times = {name: value for name in ("load_s", "sleep_s", "wake_s") if (value := getattr(model, name)) is not None}
        specs[server_id] = ServerSpec(server_id, model.memory_mb, model.asleep_mb, **{"load_s": load_s, **times})
        for expert in model.experts or [server_id]:
            if of_expert.setdefault(expert, server_id) != server_id:
                raise bad_input(f"{file}: expert {expert!r} lives on {of_expert[expert]!r} and on {server_id!r}")
    return Servers(specs, of_expert)


def servers_of_cards(cards: Sequence[Mapping[str, Any]], *, load_s: float) -> Servers:
    """The servers that the registry's experts need: one each, and adapters on their base's.

    A server needs the most that one of its experts declares. Experts without a declared memory are left out.
    """
    bases = {(card["backend"], card["model"]): card["id"] for card in cards if not card.get("adapter_of")}
    needs: dict[str, float] = {}
    of_expert = {}
    for card in cards:
        base = card.get("adapter_of")
        server_id = bases.get((card["backend"], base), base) if base else card["id"]
        if card.get("memory_mb"):
            of_expert[card["id"]] = server_id
            needs[server_id] = max(needs.get(server_id, 0.0), card["memory_mb"])
    elsewhere = frozenset(card["id"] for card in cards if card["backend"] in _ELSEWHERE and card["id"] not in of_expert)
    return Servers({server_id: ServerSpec(server_id, mb, load_s=load_s) for server_id, mb in needs.items()}, of_expert, elsewhere)


def with_memory(servers: Servers, given: Iterable[str], *, load_s: float) -> Servers:
    """*servers* with what ``--memory ID=MB`` says over it; an id that is neither server nor expert becomes a server of its own."""
    specs, of_expert = dict(servers.specs), dict(servers.of_expert)
    for pair in given:
        name, _, memory = pair.partition("=")
        try:
            spec = ServerSpec(of_expert.get(name, name), float(memory), load_s=load_s)
        except ValueError as error:
            raise bad_input(f"--memory {pair!r} must be like math-7b=16000, in MB") from error
        if (known := specs.get(spec.id)) is not None:
            spec = ServerSpec(spec.id, spec.memory_mb, known.asleep_mb, known.load_s, known.sleep_s, known.wake_s)
        specs[spec.id] = spec
        of_expert.setdefault(name, spec.id)
    return Servers(specs, of_expert, servers.elsewhere - of_expert.keys())


def merged(first: Servers, then: Servers) -> Servers:
    """*first*, and what it does not say from *then*."""
    of_expert = {**then.of_expert, **first.of_expert}
    specs = {**then.specs, **first.specs}
    return Servers(
        {name: specs[name] for name in specs if name in first.specs or name in of_expert.values()},
        of_expert,
        then.elsewhere - of_expert.keys(),
    )


def unknown_experts(routes: Iterable[Route], servers: Servers) -> list[str]:
    """Experts of *routes* for which no server is known, sorted."""
    named = {expert for route in routes for expert in route.experts}
    return sorted(named - servers.of_expert.keys() - servers.elsewhere)
