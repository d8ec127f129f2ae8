"""``consilium workers simulate`` on files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from api.cli.main import run
from api.cli.residency_input import Route, route_of, servers_of_cards

SERVERS = """
servers:
  base: {memory_mb: 16, experts: [math, agg]}
  law: {memory_mb: 8, asleep_mb: 1, load_s: 5, sleep_s: 1, wake_s: 2}
  code: {memory_mb: 8, load_s: 7}
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Routes of three requests, and servers."""
    routes, servers = tmp_path / "routes.jsonl", tmp_path / "servers.yaml"
    lines: list[dict[str, Any]] = [
        {"experts": ["math", "law", "agg"], "service_s": 2},
        {"calls": [{"expert": "code"}, {"expert": "math"}], "experts": ["code", "math"], "timings_ms": {"total": 1500}},
        {"experts": ["law"], "total_ms": 500},
    ]
    routes.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    servers.write_text(SERVERS)
    return str(routes), str(servers)


def test_a_simulation_counts_for_every_size_and_policy(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """An adapter uses its base's server; times come from the file, or from --load-s; what nobody calls is left out."""
    routes, servers = files
    code = run(["workers", "simulate", routes, "--servers", servers, "--capacity", "24", "--capacity", "32", "--load-s", "20", "--json"])

    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (told["num_requests"], told["num_uses"], told["service_s"]) == (3, 6, 4.0)
    assert [(result["host_mb"], result["policy"]) for result in told["results"]] == [
        (24, "lru"), (24, "belady"), (24, "cost"), (32, "lru"), (32, "belady"), (32, "cost"),
    ]  # fmt: skip
    lru, everything = told["results"][0], told["results"][3]
    assert (lru["num_hits"], lru["num_loads"], lru["num_stops"], lru["lost_s"]) == (2, 4, 2, 20 + 5 + 7 + 5)
    assert (everything["num_hits"], everything["num_loads"], everything["lost_s"]) == (3, 3, 20 + 5 + 7)
    assert told["fewest_loads"] == [{"host_mb": 24, "num_loads": 3, "exact": False}, {"host_mb": 32, "num_loads": 3, "exact": True}]
    assert {server["id"]: server["experts"] for server in told["servers"]} == {"base": ["agg", "math"], "law": ["law"], "code": ["code"]}


def test_the_table_has_a_row_for_each(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without --capacity, from the smallest host that works to one where everything fits."""
    routes, servers = files

    assert run(["workers", "simulate", routes, "--servers", servers, "--policy", "lru", "--policy", "belady"]) == 0
    out, err = capsys.readouterr()
    assert "3 requests, 6 uses of servers" in out
    assert [line.split()[0] for line in out.splitlines() if " lru " in line] == ["16", "22", "27", "32"]
    assert "of the time" in out
    assert "belady sees the whole trace" in err


def test_pinned_experts_stay(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    routes, servers = files
    code = run(["workers", "simulate", routes, "--servers", servers, "--pin", "agg", "--capacity", "24", "--policy", "lru", "--json"])

    told = json.loads(capsys.readouterr().out)
    assert (code, told["pinned"], told["results"][0]["num_hits"]) == (0, ["base"], 3)


def test_memory_can_be_given_by_hand(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"experts": ["a", "b", "a"]}\n'))
    code = run(["workers", "simulate", "-", "--memory", "a=8", "--memory", "b=8", "--capacity", "8", "--json"])

    told = json.loads(capsys.readouterr().out)
    assert (code, told["results"][0]["num_loads"], told["service_s"]) == (0, 3, None)
    assert told["fewest_loads"] == [{"host_mb": 8.0, "num_loads": 3, "exact": True}]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--capacity", "15"], "server 'base' needs 16 MB and the host has 15 MB, so it can never fit: give the host more memory"),
        (["--policy", "lru2"], "unknown residency policy 'lru2'; did you mean 'lru'?"),
        (["--pin", "agg,lwa"], "no expert or server 'lwa'; did you mean 'law'?"),
        (["--memory", "law"], "--memory 'law' must be like math-7b=16000"),
        (["--memory", "law=-3"], "server 'law': memory_mb is -3, it must be above 0"),
    ],
)
def test_what_cannot_be_simulated_is_one_line(
    files: tuple[str, str], options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    routes, servers = files
    code = run(["workers", "simulate", routes, "--servers", servers, *options])

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert told in err


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"experts": "math"}', '{"experts": [1]}', '{"calls": [{}]}', "{}", '{"experts": [], "service_s": "x"}']
)
def test_a_bad_line_is_named(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "routes.jsonl"
    file.write_text(f'{{"experts": ["a"]}}\n{line}\n')

    assert run(["workers", "simulate", str(file), "--memory", "a=1"]) == 2
    assert f"{file}, line 2: expected a trace" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("servers: {a: {memory: 8}}", "servers.a: memory"),
        ("servers: {a: 8}", "servers.a: "),
        ("servers: [", "is no valid YAML, line 1"),
        ("servers: {a: {memory_mb: 8, experts: [x]}, b: {memory_mb: 8, experts: [x]}}", "expert 'x' lives on 'a' and on 'b'"),
        ("a: 8", "must be like"),
    ],
)
def test_a_bad_servers_file_says_where(text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "servers.yaml"
    file.write_text(text)

    assert run(["workers", "simulate", "nowhere.jsonl", "--servers", str(file)]) == 2
    assert run(["workers", "simulate", str(_routes(tmp_path)), "--servers", str(file)]) == 2
    assert told in capsys.readouterr().err


def _routes(folder: Path) -> Path:
    (folder / "routes.jsonl").write_text('{"experts": ["x"]}\n')
    return folder / "routes.jsonl"


def test_a_stored_trace_is_read_as_it_was_written() -> None:
    """With every call, one expert's second too; its time is that of the whole request."""
    stored = {"experts": ["a", "b"], "calls": [{"expert_id": "a"}, {"expert_id": "b"}, {"expert_id": "a"}], "total_ms": 2500.0}

    assert route_of(stored) == Route(("a", "b", "a"), 2.5)


def test_cards_become_servers() -> None:
    """An adapter lives on its base's server, which needs the most that one of them declares; a provider's experts need none."""
    cards = [
        {"id": "general", "backend": "openai", "model": "base", "adapter_of": None, "memory_mb": 16.0},
        {"id": "comparison", "backend": "openai", "model": "cmp", "adapter_of": "base", "memory_mb": 18.0},
        {"id": "orphan", "backend": "openai", "model": "x", "adapter_of": "elsewhere", "memory_mb": 4.0},
        {"id": "claude", "backend": "litellm", "model": "anthropic/claude", "adapter_of": None, "memory_mb": None},
        {"id": "unknown", "backend": "openai", "model": "u", "adapter_of": None, "memory_mb": None},
    ]
    found = servers_of_cards(cards, load_s=3.0)

    assert {spec.id: (spec.memory_mb, spec.load_s) for spec in found.specs.values()} == {"general": (18.0, 3.0), "elsewhere": (4.0, 3.0)}
    assert found.of_expert == {"general": "general", "comparison": "general", "orphan": "elsewhere"}
    assert found.elsewhere == {"claude"}
