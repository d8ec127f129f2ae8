"""Managed servers as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.managed.views import PoolView, ServerView


def server_view(server: ServerView) -> dict[str, Any]:
    """One server as JSON: memory in MB, times in seconds."""
    status, picture = server.status, server.picture
    return {
        "id": server.id,
        "state": status.state.value,
        "residency": picture.state.value,
        "reason": status.reason,
        "since": status.since.timestamp(),
        "model": server.model,
        "experts": list(server.expert_ids),
        "adapters": list(status.adapters),
        "pool": server.pool,
        "memory_mb": picture.memory_mb,
        "held_mb": picture.held_mb,
        "pinned": picture.pinned,
        "num_serving": picture.num_holders,
        "num_waiting": picture.num_waiting,
        "idle_s": picture.idle_s,
        "num_loads": picture.num_loads,
        "num_failures": status.num_failures,
        "times": {"load_s": picture.load_s, "sleep_s": picture.sleep_s, "wake_s": picture.wake_s},
        "measured": {"memory_mb": status.measured.memory_mb, "asleep_mb": status.measured.asleep_mb},
        "base_url": status.base_url,
        "pid": status.pid,
        "is_adopted": status.is_adopted,
        "is_outdated": status.is_outdated,
        "trouble": picture.trouble,
    }


def pool_view(pool: PoolView) -> dict[str, Any]:
    """One pool of memory, and what was counted there since the start."""
    snapshot, counts = pool.snapshot, pool.snapshot.counts
    return {
        "id": pool.id,
        "policy": snapshot.policy,
        "memory_mb": snapshot.memory_mb,
        "held_mb": snapshot.held_mb,
        "resident": list(pool.resident),
        "num_uses": counts.num_uses,
        "num_hits": counts.num_hits,
        "num_loads": counts.num_loads,
        "num_wakes": counts.num_wakes,
        "num_sleeps": counts.num_sleeps,
        "num_stops": counts.num_stops,
        "num_failed": counts.num_failed,
        "lost_s": counts.lost_s,
        "waited_s": counts.waited_s,
    }
