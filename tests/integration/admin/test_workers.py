"""The managed servers over ``/admin/api/workers`` and with ``consilium workers``; the servers are stand-ins."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from domain.experts import ServingOptions
from tests.fakes.admin import AdminParts
from tests.fakes.fleets import adapter_on, managed
from tests.integration.admin.conftest import Consilium


@pytest.fixture
def parts(tmp_path: Path) -> AdminParts:
    base = managed("base")
    sleeper = managed("sleeper", serving=ServingOptions(gpus=("0",), asleep_mb=5.0))
    broken = managed("broken", serving=ServingOptions(extra_arguments=("--crash-at-start", "3")))
    wrong = managed("wrong", serving=ServingOptions(extra_arguments=("--port", "1")))
    return AdminParts(managed=[base, adapter_on(base, "chess", tmp_path / "adapters"), sleeper, broken, wrong])


async def test_the_list_tells_servers_pools_and_who_has_none(client: httpx.AsyncClient) -> None:
    told = (await client.get("/workers")).json()

    assert [row["id"] for row in told["data"]] == ["base", "broken", "sleeper"]
    assert {row["state"] for row in told["data"]} == {"stopped"}
    assert told["data"][0]["experts"] == ["base", "chess"]
    assert [(pool["id"], pool["memory_mb"], pool["resident"]) for pool in told["pools"]] == [("gpu 0", 100, []), ("processors", 100, [])]
    assert "cannot be passed on" in told["unplaced"]["wrong"]
    assert told["trouble"] is None


async def test_the_list_comes_in_pages(client: httpx.AsyncClient) -> None:
    first = (await client.get("/workers", params={"limit": 2})).json()
    second = (await client.get("/workers", params={"limit": 2, "cursor": first["next"]})).json()

    assert [row["id"] for row in first["data"] + second["data"]] == ["base", "broken", "sleeper"]
    assert second["next"] is None


async def test_a_server_is_started_and_stopped_by_an_expert_s_name(client: httpx.AsyncClient) -> None:
    started = await client.post("/workers/chess/start")
    assert started.status_code == 200
    assert (started.json()["id"], started.json()["state"], started.json()["held_mb"]) == ("base", "ready", 80)
    assert started.json()["num_loads"] == 1
    assert started.json()["pid"] > 0

    logs = (await client.get("/workers/base/logs", params={"lines": 5})).json()
    assert logs["id"] == "base"
    assert "serving /models/base" in logs["lines"]

    assert (await client.post("/workers/base/stop")).json()["state"] == "stopped"
    assert (await client.get("/workers/base")).json()["held_mb"] == 0


async def test_a_server_sleeps_and_wakes(client: httpx.AsyncClient) -> None:
    await client.post("/workers/sleeper/start")

    asleep = (await client.post("/workers/sleeper/sleep")).json()
    assert (asleep["state"], asleep["held_mb"]) == ("asleep", 5)
    awake = (await client.post("/workers/sleeper/wake")).json()
    assert (awake["state"], awake["held_mb"]) == ("ready", 80)
    assert awake["num_loads"] == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/workers/bas", 404, "did you mean 'base'"),
        ("POST", "/workers/nobody/start", 404, "no managed server 'nobody'"),
        ("POST", "/workers/wrong/start", 404, "cannot be passed on"),
        ("POST", "/workers/base/sleep", 409, "start it first"),
        ("POST", "/workers/base/wake", 409, "start it instead"),
        ("POST", "/workers/broken/start", 502, "exit code 3"),
        ("GET", "/workers/base/logs?lines=0", 400, "lines"),
        ("GET", "/workers?limt=3", 400, "did you mean 'limit'"),
    ],
)
async def test_what_cannot_be_done_says_why(client: httpx.AsyncClient, method: str, path: str, status: int, says: str) -> None:
    answer = await client.request(method, path)

    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]["message"]


async def test_a_server_that_frees_nothing_asleep_is_not_put_to_sleep(client: httpx.AsyncClient) -> None:
    await client.post("/workers/base/start")
    answer = await client.post("/workers/base/sleep")

    assert answer.status_code == 400
    assert "declares no asleep_mb" in answer.json()["error"]["message"]


def test_the_commands_list_start_read_and_stop_servers(consilium: Consilium) -> None:
    listed = consilium("workers", "list")
    assert listed.code == 0
    assert "base, chess" in listed.out
    assert "wrong has no server" in listed.err

    started = consilium("workers", "start", "chess")
    assert (started.code, started.out) == (0, started.out)
    assert started.out.startswith("base is ready: was ready after")
    assert "serving /models/base" in consilium("workers", "logs", "base", "--lines", "5").out.splitlines()
    assert json.loads(consilium("workers", "list", "--json").out)["data"][0]["state"] == "ready"
    assert json.loads(consilium("workers", "logs", "base", "--json").out)["id"] == "base"
    assert consilium("workers", "stop", "base").out.startswith("base is stopped")


def test_the_commands_put_a_server_to_sleep_and_wake_it(consilium: Consilium) -> None:
    consilium("workers", "start", "sleeper")

    assert consilium("workers", "sleep", "sleeper").out.startswith("sleeper is asleep")
    assert json.loads(consilium("workers", "wake", "sleeper", "--json").out)["state"] == "ready"


def test_a_command_that_fails_is_one_line(consilium: Consilium) -> None:
    missing, local = consilium("workers", "stop", "bas"), consilium("workers", "list", "--local")
    failed = consilium("workers", "start", "broken")

    assert (missing.code, local.code, failed.code) == (2, 2, 1)
    assert missing.err.startswith("error: there is no managed server 'bas'; did you mean 'base'?")
    assert "belong to a running service" in local.err
    assert "exit code 3" in failed.err
    assert "broken: " in consilium("workers", "list").err, "the list says why it is down"
