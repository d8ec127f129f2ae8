"""What stands in the navigation, in its order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A link; *needs* is the role without which it is not shown."""

    name: str
    path: str
    icon: str
    needs: str = "viewer"


NAVIGATION = (
    Entry("Overview", "/admin", "overview"),
    Entry("Experts", "/admin/experts", "experts"),
    Entry("Skills", "/admin/skills", "skills"),
    Entry("Playground", "/admin/playground", "playground"),
    Entry("Requests", "/admin/requests", "requests"),
    Entry("Batches", "/admin/batches", "batches"),
    Entry("Workers", "/admin/workers", "workers"),
    Entry("Evaluation", "/admin/evaluation", "evaluation"),
    Entry("Strategies", "/admin/strategies", "strategies"),
    Entry("Keys", "/admin/keys", "keys"),
    Entry("Audit log", "/admin/audit", "audit", needs="owner"),
)
