"""Fleets whose servers are stand-ins, with short times."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from domain.deadline import Deadline
from domain.experts import Backend, ExpertCard, ServingOptions
from domain.plan import ExpertCall
from tests.fakes.vllm import LIMITS, POLICY, PROGRAM
from workers.managed.fleet import Fleet
from workers.managed.limits import FleetLimits
from workers.managed.placement import HostMemory
from workers.managed.settings import FleetSettings
from workers.pool import WorkerPool
from workers.vllm.command import Installation

MEMORY_MB = 100.0
"""Room for one of ``managed``'s servers."""
FLEET_LIMITS = FleetLimits(retry_s=0.05, place_wait_s=20.0, confirm_s=30.0, probe_s=5.0, progress_s=0.05)


def managed(expert_id: str, **changes: Any) -> ExpertCard:
    """An expert that is a server of its own, two of which do not fit together."""
    card = ExpertCard(expert_id, Backend.VLLM, f"/models/{expert_id}", memory_mb=80.0, serving=ServingOptions(load_s=1.0))
    return replace(card, **changes)


def adapter_on(base: ExpertCard, expert_id: str, folder: Path, *, rank: int = 8) -> ExpertCard:
    """A LoRA adapter on *base*, whose files are made in *folder*."""
    (folder / expert_id).mkdir(parents=True)
    (folder / expert_id / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return ExpertCard(expert_id, Backend.VLLM, str(folder / expert_id), adapter_of=base.model)


def fleet_in(folder: Path, *, memory_mb: float = MEMORY_MB, limits: FleetLimits = FLEET_LIMITS, **changes: Any) -> Fleet:
    """A fleet that manages *folder*. Its owner updates and closes it."""
    settings = FleetSettings(
        folder=folder,
        installation=Installation(cpu=PROGRAM, gpu=PROGRAM),
        memory=HostMemory(memory_mb, gpu_mb=memory_mb),
        embedded_dir=folder,
        limits=limits,
        vllm_limits=LIMITS,
        restart_policy=POLICY,
    )
    return Fleet(replace(settings, **changes))


def pool_on(fleet: Fleet, folder: Path) -> WorkerPool:
    return WorkerPool(embedded_dir=folder, fleet=fleet)


def call_to(card: ExpertCard, text: str = "hello", *, timeout_s: float = 60.0, **changes: Any) -> ExpertCall:
    return ExpertCall(card, ({"role": "user", "content": text},), {}, Deadline.after(timeout_s), "r1", **changes)
