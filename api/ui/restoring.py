"""Putting back what a change of one resource replaced or removed, from the audit log."""

from __future__ import annotations

from collections.abc import Sequence

from api.rest import path_of
from api.ui.history import Change, body_before, changes_of
from api.ui.visit import Visit
from domain.audit import AuditEntry
from domain.errors import NotFound

NUM_CHANGES = 25
"""Last changes of one thing that its page shows, and that can be taken back."""


async def changes(visit: Visit, kind: str, name: str) -> Sequence[Change]:
    """What happened to the *kind* (``experts``, ``strategies``) called *name*, newest first."""
    return changes_of(await _entries(visit, kind, name))


async def restore(visit: Visit, kind: str, name: str) -> None:
    """Put back what the entry that the form names replaced or removed; where it names none, what was removed last.

    Raises ``NotFound`` when there is no such entry, ``InvalidRequest`` when it holds nothing to put back, ``Refused``.
    """
    wanted = visit.form.text("entry")
    for entry in await _entries(visit, kind, name):
        if entry.id == wanted or (not wanted and entry.method == "DELETE"):
            await visit.rest.send("PUT", path_of(kind, name), body_before(entry))
            return
    raise NotFound(f"there is no such change of {name!r} in {kind} (any more)")


async def _entries(visit: Visit, kind: str, name: str) -> Sequence[AuditEntry]:
    return await visit.services.keys.audit.list(about=path_of(kind, name), limit=NUM_CHANGES)
