"""Every bound of managed servers: its name, its unit and why it is there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VllmLimits:
    """Bounds of one server's process and of what is asked of it."""

    start_timeout_s: float = 600.0
    """Longest start: a large model from a slow disk, compiled for the first time. A tiny one on processors takes 30 to 90 s."""
    start_poll_s: float = 0.5
    """Pause between two looks whether a starting server is ready."""
    stop_grace_s: float = 20.0
    """From the polite end to the hard one. vLLM ends itself in one to five seconds when it is well."""
    kill_timeout_s: float = 15.0
    """Time for processes to be gone after SIGKILL; a GPU driver may hold on to them for some seconds."""
    probe_s: float = 5.0
    """Pause between two looks at the health of a server that is up."""
    probe_timeout_s: float = 10.0
    """Time for one look. The API process answers it, not the engine; only a starved machine needs seconds."""
    max_failed_probes: int = 6
    """Failed looks in a row after which a server that still runs is taken for hung and ended: a minute and a half at most."""
    change_timeout_s: float = 60.0
    """Time to fall asleep or wake: at worst all weights move between a GPU and memory."""
    adapter_timeout_s: float = 60.0
    """Time to load or unload one adapter."""
    max_adapters: int = 256
    """Adapters on one server."""
    adopt_timeout_s: float = 10.0
    """Time for a server that was left running to show that it is well."""
    owner_poll_s: float = 1.0
    """Pause between two looks of a server's shim whether the service lives."""
    orphan_grace_s: float = 180.0
    """How long a server outlives the service, so that one that starts again finds it loaded. Then it is ended."""
    max_log_bytes: int = 4 * 2**20
    """Size of a server's log; a second file keeps as much of what came before. vLLM writes some 30 KB at a start."""
    max_response_bytes: int = 4 * 2**20
    """Largest response that is read."""
    log_tail_lines: int = 20
    """Lines of the log that are told with the end of a server."""
