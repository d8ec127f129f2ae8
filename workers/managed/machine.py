"""What memory the machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SHARE_FOR_SERVERS = 0.6
"""Of the machine's memory, for managed servers: the rest is for the service, its encoder and embedded experts, and the system."""
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_ASK_TIMEOUT_S = 10.0
"""nvidia-smi takes one or two seconds where no daemon keeps the driver loaded."""


def machine_memory_mb() -> float:
    """Memory of the machine, or of the container when that has less."""
    bounds = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    for file in _CGROUP_LIMITS:
        try:
            bounds.append(float(file.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(bounds) / 2**20


def gpu_memory_mb() -> float | None:
    """Memory of the machine's smallest GPU as nvidia-smi tells it; None when there is none. Takes up to seconds."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        told = subprocess.run(  # noqa: S603
            [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=True,
        )  # fmt: skip
        return min((float(line) for line in told.stdout.split()), default=None)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
