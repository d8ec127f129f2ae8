"""What happened to one thing of the registry, from the audit log, and how to bring an earlier state back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.audit import AuditEntry

_SERVED = frozenset({"version", "health", "new_skills"})
"""Fields that the service adds: no change of anybody's."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field, before and after."""

    name: str
    was: Any
    now: Any


@dataclass(frozen=True, slots=True)
class Change:
    """One entry, as people read it."""

    entry: AuditEntry
    what: str
    differences: Sequence[Difference] = ()
    can_restore: bool = False
    """Whether what was there before can be put back."""


def changes_of(entries: Iterable[AuditEntry]) -> list[Change]:
    """Entries about one thing, newest first, as changes; calls that change nothing are left out."""
    found = []
    for entry in entries:
        before, after = _fields(entry.before), _fields(entry.after)
        match entry.method:
            case "POST" if entry.status == 201:
                found.append(Change(entry, "created"))
            case "PUT" | "PATCH" if after is not None:
                differences = differences_of(entry.before, entry.after)
                found.append(Change(entry, "changed" if before is not None else "created", differences, before is not None))
            case "DELETE":
                found.append(Change(entry, "deleted", can_restore=before is not None))
    return found


def differences_of(was: Any, now: Any) -> list[Difference]:
    """The fields of two states of one thing that differ, by name; none where one of them is no state."""
    before, after = _fields(was), _fields(now)
    if before is None or after is None:
        return []
    names = sorted({*before, *after})
    return [Difference(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def body_before(entry: AuditEntry) -> dict[str, Any] | None:
    """What *entry* replaced or removed, as a body for the API; None when it holds nothing such."""
    return _fields(entry.before)


def _fields(state: Any) -> dict[str, Any] | None:
    if not isinstance(state, Mapping) or "id" not in state:
        return None
    return {name: value for name, value in state.items() if name not in _SERVED}
