"""The residency on top of managed servers, as the service puts them together."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from domain.deadline import Deadline
from domain.errors import ExpertError, ExpertUnavailable, ExpertUnreachable
from tests.fakes.vllm import processes, stand_in
from tests.integration.vllm.conftest import Open, until
from workers.residency.host import ServerHost
from workers.residency.manager import Residency
from workers.residency.servers import ServerSpec
from workers.vllm.host import VllmHost
from workers.vllm.status import ServerState


async def test_servers_take_turns_in_memory_for_one(opened: Open, root: Path) -> None:
    supervised = await opened(stand_in(server_id="a"), stand_in(server_id="b"), restart=False)
    host: ServerHost = VllmHost(supervised)
    residency = Residency(host, memory_mb=100, servers=[ServerSpec("a", 80), ServerSpec("b", 80)])

    for server_id in ("a", "b", "a"):
        async with residency.hold(server_id, Deadline.after(60)):
            running = [status.server_id for status in supervised.statuses() if status.state is ServerState.READY]
            assert running == [server_id]
            assert len(processes(root)) == 2

    await residency.close()


async def test_a_crashed_server_is_loaded_again_by_who_needs_it(opened: Open) -> None:
    supervised = await opened(stand_in(), restart=False, on_down=lambda status: residency.lost(status.server_id))
    residency = Residency(VllmHost(supervised), memory_mb=100, servers=[ServerSpec("stand-in", 80, asleep_mb=20)])
    async with residency.hold("stand-in", Deadline.after(60)):
        first = supervised.status("stand-in").pid
    assert first is not None

    (await asyncio.create_subprocess_exec("kill", "-9", str(first)))
    await until(lambda: supervised.status("stand-in").state is ServerState.FAILED)
    async with residency.hold("stand-in", Deadline.after(60)):
        assert supervised.status("stand-in").state is ServerState.READY

    await residency.close()


async def test_every_failure_is_an_expert_error(opened: Open) -> None:
    host = VllmHost(await opened(stand_in("--no-such-argument"), restart=False))

    with pytest.raises(ExpertUnreachable, match="exit code 2") as failed:
        await host.load("stand-in")
    assert not failed.value.retryable
    for change in (host.load, host.stop, host.sleep, host.wake):
        with pytest.raises(ExpertUnavailable, match="there is no server"):
            await change("unknown")
    with pytest.raises(ExpertError, match="cannot be put to sleep"):
        await host.sleep("stand-in")
    await host.stop("stand-in")
