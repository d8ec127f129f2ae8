"""Supervisors of stand-in servers, that leave nothing behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fakes.vllm import processes, supervisor
from workers.vllm.status import ServerState
from workers.vllm.supervisor import Supervisor

Open = Callable[..., Awaitable[Supervisor]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "vllm"


@pytest.fixture
async def opened(root: Path) -> AsyncIterator[Open]:
    """Opens a supervisor of the given launches; closes all at the end, and nothing may run then."""
    supervisors: list[Supervisor] = []

    async def opened(*launches: Any, **how: Any) -> Supervisor:
        supervisors.append(supervisor(root, *launches, **how))
        await supervisors[-1].open()
        return supervisors[-1]

    yield opened
    try:
        for one in supervisors:
            await one.close()
        left = processes(root)
        assert not left, f"{len(left)} processes are left"
    finally:
        for identity in processes(root):  # so that one failure is not the next test's
            with suppress(psutil.NoSuchProcess):
                psutil.Process(identity.pid).kill()


async def until(fact: Callable[[], object], *, within_s: float = 60.0) -> None:
    """Wait for *fact* to be true."""
    end = time.monotonic() + within_s
    while not fact():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)


async def until_state(supervised: Supervisor, state: ServerState, server_id: str = "stand-in") -> None:
    await until(lambda: supervised.status(server_id).state is state)
