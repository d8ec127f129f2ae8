"""What a fleet is built from, and what it tells its callers. Values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from workers.managed.limits import FleetLimits
from workers.managed.machine import gpu_memory_mb
from workers.managed.placement import HostMemory
from workers.residency.limits import ResidencyLimits
from workers.vllm.command import Installation
from workers.vllm.limits import VllmLimits
from workers.vllm.restart import RestartPolicy


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What a fleet is built from."""

    folder: Path
    """Where the servers' records and logs are, and what was measured."""
    installation: Installation
    memory: HostMemory
    embedded_dir: Path
    """Where embedded experts have their folders."""
    serves_embedded: bool = False
    """Whether experts of the backend ``embedded`` run on managed servers too."""
    policy: str = "lru"
    limits: FleetLimits = field(default_factory=FleetLimits)
    vllm_limits: VllmLimits = field(default_factory=VllmLimits)
    residency_limits: ResidencyLimits = field(default_factory=ResidencyLimits)
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    refusal: str | None = None
    """Why this process manages no servers; None when it does. Experts that need one are told."""
    ask_gpu_memory: Callable[[], float | None] = gpu_memory_mb
    """Asked once, when a card wants GPUs and ``memory`` does not say what they have."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the calls of one expert go while its server is held."""

    base_url: str
    """With ``/v1``. Every start of a server has another."""
    model: str
