"""The gateways that are compared, each one process in front of the same upstream: started, ready, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import yaml

from benchmarks.load import Target
from benchmarks.mock_upstream import MODEL, Upstream
from benchmarks.served_zoo import ROOT, ServerFailed, free_port, served_zoo, stop, tail
from zoo import release

PEERS = ROOT / ".peers"
"""Where ``make peers`` puts them."""
LITELLM = PEERS / "litellm" / "bin" / "litellm"
PORTKEY = PEERS / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
EXPLICIT = "mock"
"""The expert that is asked for by name."""
ADMIN_KEY = "benchmark-admin-key-0123456789abcdef"
READY_TIMEOUT_S = 120.0
"""LiteLLM's proxy takes some ten seconds to import."""
MAX_IN_FLIGHT = 4096
"""Of each expert: what the mock takes is not what is measured."""


class PeerMissing(RuntimeError):
    """A peer is not installed; the text says how to make it."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A way to the upstream."""

    name: str
    target: Target
    model: str
    pid: int | None = None
    """Of the process that answers, or of the one that started those; None for no gateway at all."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a gateway's processes hold and have used so far."""

    resident_mb: float
    processor_s: float


def use_of(gateway: Gateway) -> Use:
    """Of its process and that one's children; shared pages count once for each."""
    if gateway.pid is None:
        return Use(0.0, 0.0)
    parent = psutil.Process(gateway.pid)
    processes = [parent, *parent.children(recursive=True)]
    times = [process.cpu_times() for process in processes]
    return Use(sum(p.memory_info().rss for p in processes) / 1e6, sum(t.user + t.system for t in times))


def pin(pid: int | None, cpus: Sequence[int]) -> None:
    """Let the process, its children and all their threads run on *cpus* only."""
    if pid is None:
        return
    parent = psutil.Process(pid)
    for process in (parent, *parent.children(recursive=True)):
        for thread in process.threads():
            with suppress(ProcessLookupError):  # ended meanwhile
                os.sched_setaffinity(thread.id, cpus)


def mock_manifest(base_url: str) -> str:
    """The zoo's experts, all of them served by the upstream, and one more to be asked for by name.

    The ids are the zoo's, so that what was measured of them routes: `auto` encodes, compares, scores and picks as it does for real; its
    fallback answers what is like nothing known, so that no question is refused.
    """
    zoo = yaml.safe_load(release.manifest_text())
    served = {"backend": "openai", "model": MODEL, "base_url": base_url, "max_in_flight": MAX_IN_FLIGHT, "context_length": 8192}
    kept = ("id", "description", "skills", "roles")
    experts = [{**{key: card[key] for key in kept if key in card}, **served} for card in zoo["experts"]]
    auto = next(strategy for strategy in zoo["strategies"] if strategy["id"] == "auto")
    return json.dumps({"experts": [*experts, {"id": EXPLICIT, **served}], "strategies": [auto]})


@asynccontextmanager
async def consilium(upstream: Upstream, *, workers: int = 1, variables: Mapping[str, str] | None = None) -> AsyncIterator[Gateway]:
    """The service as it comes, traces and all; ask its ``model`` or ``auto``."""
    given = {"CONSILIUM_ADMIN_KEY": ADMIN_KEY, "CONSILIUM_LOG_LEVEL": "warning", **(variables or {})}
    arguments = ("--workers", str(workers)) if workers > 1 else ()
    async with served_zoo(variables=given, arguments=arguments) as served, httpx.AsyncClient(timeout=30, trust_env=False) as client:
        answer = await client.post(
            f"{served.base_url}/admin/api/manifest",
            json={"yaml": mock_manifest(upstream.base_url)},
            headers={"authorization": f"Bearer {ADMIN_KEY}"},
        )
        answer.raise_for_status()
        port = httpx.URL(served.base_url).port
        assert port is not None
        yield Gateway("Consilium", Target(port), EXPLICIT, served.pid)


@asynccontextmanager
async def litellm(upstream: Upstream) -> AsyncIterator[Gateway]:
    """LiteLLM's proxy, one worker. Raises ``PeerMissing``."""
    if not LITELLM.exists():
        raise PeerMissing(f"LiteLLM is left out: there is no {LITELLM.relative_to(ROOT)}; `make peers` installs it")
    with tempfile.TemporaryDirectory(prefix="consilium-benchmark-") as folder:
        parameters = {"model": f"openai/{MODEL}", "api_base": upstream.base_url, "api_key": "unused"}
        config = Path(folder) / "config.yaml"
        config.write_text(yaml.safe_dump({"model_list": [{"model_name": MODEL, "litellm_params": parameters}]}))
        port = free_port()
        command = [str(LITELLM), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        variables = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise it asks the network for prices when it starts
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # no key, as with the others
            "LITELLM_LOG": "ERROR",
        }
        async with _running(command, port, "/health/liveliness", variables, Path(folder)) as pid:
            yield Gateway("LiteLLM proxy", Target(port), MODEL, pid)


@asynccontextmanager
async def portkey(upstream: Upstream) -> AsyncIterator[Gateway]:
    """Portkey's gateway on Node.js. Raises ``PeerMissing``."""
    node = shutil.which("node")
    if node is None or not PORTKEY.exists():
        what = "Node.js is not installed" if node is None else f"there is no {PORTKEY.relative_to(ROOT)}"
        raise PeerMissing(f"Portkey is left out: {what}; `make peers` installs it where Node.js 18 is")
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": upstream.base_url, "authorization": "Bearer unused"}
    with tempfile.TemporaryDirectory(prefix="consilium-benchmark-") as folder:
        port = free_port()
        async with _running(
            [node, str(PORTKEY), "--headless", f"--port={port}"], port, "/", {"NODE_ENV": "production"}, Path(folder)
        ) as pid:
            yield Gateway("Portkey gateway", Target(port, headers=headers), MODEL, pid)


@asynccontextmanager
async def _running(command: Sequence[str], port: int, path: str, variables: Mapping[str, str], folder: Path) -> AsyncIterator[int]:
    """The process id, once it answers *path*."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220
            command, cwd=folder, env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        await _until_answering(f"http://127.0.0.1:{port}{path}", process, log)
        yield process.pid
    finally:
        await asyncio.to_thread(stop, process)


async def _until_answering(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY_TIMEOUT_S
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        while time.monotonic() < end and process.poll() is None:
            try:
                if (await client.get(url)).status_code < 500:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.3)
    raise ServerFailed(f"nothing answered at {url}:\n{tail(log)}")
