"""What a killed service leaves: its servers live on for a while, and the next one takes them over or ends them. Real processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import psutil
import pytest

from domain.errors import Conflict
from tests.fakes.vllm import processes, stand_in, supervisor
from tests.integration.vllm.conftest import Open, until, until_state
from workers.vllm.procfs import ProcessIdentity, marked
from workers.vllm.status import ServerState

ROOT = Path(__file__).parents[3]
Killed = Callable[..., Awaitable[dict[str, object]]]


@pytest.fixture
async def killed(root: Path) -> AsyncIterator[Killed]:
    """Runs a service with a stand-in server until that is ready, and kills the service with SIGKILL. Gives the server's status."""
    owners: list[asyncio.subprocess.Process] = []

    async def killed(*extra: str, orphan_grace_s: float = 600.0, before: Callable[[str], None] = lambda _url: None) -> dict[str, object]:
        owner = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.fakes.vllm_owner", str(root), str(orphan_grace_s), *extra, cwd=ROOT, stdout=subprocess.PIPE
        )  # fmt: skip
        owners.append(owner)
        assert owner.stdout is not None
        async with asyncio.timeout(90):
            told: dict[str, object] = json.loads(await owner.stdout.readline())
        await asyncio.to_thread(before, str(told["base_url"]).removesuffix("/v1"))
        owner.kill()
        await owner.wait()
        return told

    yield killed
    for owner in owners:
        if owner.returncode is None:
            owner.kill()
            await owner.wait()


def post(url: str, body: object = None) -> None:
    httpx.post(url, json=body, timeout=30, trust_env=False)


async def test_a_server_that_fits_and_is_well_is_taken_over(killed: Killed, opened: Open, root: Path) -> None:
    left = await killed()
    before = processes(root)

    supervised = await opened(stand_in())

    status = supervised.status("stand-in")
    assert (status.state, status.is_adopted, status.pid, status.base_url) == (ServerState.READY, True, left["pid"], left["base_url"])
    await supervised.start("stand-in")
    assert processes(root) == before, "nothing was started"
    await supervised.stop("stand-in")
    assert not processes(root)


async def test_one_that_sleeps_is_taken_over_asleep_with_its_adapters(killed: Killed, opened: Open, tmp_path: Path) -> None:
    def before(url: str) -> None:
        post(f"{url}/v1/load_lora_adapter", {"lora_name": "lora", "lora_path": str(tmp_path)})
        post(f"{url}/sleep?level=1")

    await killed(before=before)

    supervised = await opened(stand_in())

    status = supervised.status("stand-in")
    assert (status.state, status.adapters) == (ServerState.ASLEEP, ("lora",))
    await supervised.wake("stand-in")


async def test_one_that_was_taken_over_is_watched_like_any_other(killed: Killed, opened: Open) -> None:
    left = await killed()
    supervised = await opened(stand_in())

    psutil.Process(int(str(left["pid"]))).kill()

    await until(lambda: supervised.status("stand-in").pid not in (None, left["pid"]))
    await until_state(supervised, ServerState.READY)
    assert not supervised.status("stand-in").is_adopted


@pytest.mark.parametrize(
    "launches", [(), (stand_in(dtype="bfloat16"),), (stand_in(server_id="other"),)], ids=["not declared", "changed", "another"]
)
async def test_one_that_is_not_wanted_like_that_is_ended(killed: Killed, opened: Open, root: Path, launches: tuple[object, ...]) -> None:
    await killed("--children", "plain", "apart")
    assert processes(root)

    await opened(*launches, stop_grace_s=0.5)

    assert not processes(root)


async def test_one_that_is_not_well_is_ended(killed: Killed, opened: Open, root: Path) -> None:
    await killed(before=lambda url: post(f"{url}/hang"))

    supervised = await opened(stand_in(), adopt_timeout_s=1.0)

    assert not processes(root)
    assert supervised.status("stand-in").state is ServerState.STOPPED


async def test_one_without_shim_is_ended_even_if_it_is_deaf(killed: Killed, opened: Open, root: Path) -> None:
    left = await killed("--deaf", "--children", "deaf", "apart")
    psutil.Process(psutil.Process(int(str(left["pid"]))).ppid()).kill()
    await until(lambda: len(processes(root)) == 3)

    await opened(stand_in(), stop_grace_s=0.5)

    assert not processes(root)


async def test_one_whose_state_file_cannot_be_read_is_ended(killed: Killed, opened: Open, root: Path) -> None:
    await killed()
    (root / "stand-in" / "state.json").write_text('{"format"')

    await opened(stand_in())

    assert not processes(root)


async def test_without_a_service_that_comes_back_it_ends_itself(killed: Killed, root: Path) -> None:
    await killed("--children", "plain", orphan_grace_s=0.3)

    await until(lambda: not processes(root))

    assert "no service lives that it belongs to" in (root / "stand-in" / "server.log").read_text()


async def test_a_state_file_never_leads_to_the_processes_of_others(killed: Killed, opened: Open, root: Path) -> None:
    """Pids are used again: here the state file names a process that has nothing to do with it."""
    await killed(orphan_grace_s=0.1)
    await until(lambda: not processes(root))
    bystander = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)")
    try:
        file = root / "stand-in" / "state.json"
        record = json.loads(file.read_text())
        for part in ("shim", "server"):
            record[part]["pid"] = bystander.pid
        file.write_text(json.dumps({**record, "exit": None}))

        supervised = await opened(stand_in())

        assert supervised.status("stand-in").state is ServerState.STOPPED
        assert bystander.returncode is None
    finally:
        bystander.kill()
        await bystander.wait()


async def test_two_services_cannot_manage_one_folder(opened: Open, root: Path) -> None:
    first = await opened(stand_in())
    await first.start("stand-in")
    second = supervisor(root, stand_in())

    with pytest.raises(Conflict, match=rf"another process \(pid {os.getpid()}\) manages the vLLM servers"):
        await second.open()
    await second.close()

    assert first.status("stand-in").state is ServerState.READY
    assert processes(root)


async def test_other_folders_are_left_alone(opened: Open, tmp_path: Path, root: Path) -> None:
    """Also one whose name begins alike."""
    first = await opened(stand_in())
    await first.start("stand-in")
    mine: set[ProcessIdentity] = processes(root)
    longer = supervisor(tmp_path / "vllm2", stand_in())
    shorter = supervisor(tmp_path / "vl", stand_in())

    for other in (longer, shorter):
        await other.open()
        await other.close()

    assert processes(root) == mine
    assert not marked(str(tmp_path / "vllm2"))
