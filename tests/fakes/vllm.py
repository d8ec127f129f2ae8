"""Managed servers whose program is the stand-in, with short times."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from workers.vllm.command import Installation, ServerLaunch, VllmProgram
from workers.vllm.limits import VllmLimits
from workers.vllm.procfs import ProcessIdentity, mark_of, marked
from workers.vllm.restart import RestartPolicy
from workers.vllm.status import ServerStatus
from workers.vllm.supervisor import Supervisor

PROGRAM = VllmProgram((sys.executable, "-I", "-S", str(Path(__file__).with_name("vllm_server.py"))))
LIMITS = VllmLimits(
    start_timeout_s=30.0,  # a busy machine may take seconds to start two Pythons
    start_poll_s=0.02,
    stop_grace_s=10.0,
    kill_timeout_s=10.0,
    probe_s=0.05,
    probe_timeout_s=10.0,
    adopt_timeout_s=10.0,
    owner_poll_s=0.05,
    log_tail_lines=10,
)
POLICY = RestartPolicy(initial_s=0.01, max_s=0.05, max_failures=3, stable_s=300.0)


def stand_in(*extra: str, server_id: str = "stand-in", **changes: Any) -> ServerLaunch:
    """The launch of a stand-in server that takes adapters."""
    launch = ServerLaunch(server_id, "/models/base", "base", max_lora_rank=8, extra_arguments=extra)
    return replace(launch, **changes)


def supervisor(
    root: Path,
    *launches: ServerLaunch,
    policy: RestartPolicy = POLICY,
    restart: bool = True,
    on_down: Callable[[ServerStatus], None] = lambda _status: None,
    **limits: float,
) -> Supervisor:
    """A supervisor of stand-in servers; not open yet."""
    return Supervisor(
        root,
        Installation(cpu=PROGRAM),
        launches=launches,
        limits=replace(LIMITS, **limits),
        policy=policy,
        restart=restart,
        on_down=on_down,
    )


def processes(root: Path) -> set[ProcessIdentity]:
    """All that runs now of the servers in *root*, shims included."""
    return {process.identity for process in marked(mark_of(root.resolve()))}
