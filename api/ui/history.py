"""What happened to one thing of the registry, from the audit log, and how to bring an earlier state back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.schemas.admin_answers import SERVED_OF_EXPERTS, SERVED_OF_KEYS
from domain.audit import AuditEntry
from domain.errors import InvalidRequest
from domain.redaction import has_hidden

_SERVED = SERVED_OF_EXPERTS | SERVED_OF_KEYS


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
                found.append(Change(entry, "changed" if before is not None else "created", differences, _can_return(before)))
            case "DELETE":
                found.append(Change(entry, "deleted", can_restore=_can_return(before)))
    return found


def differences_of(was: Any, now: Any) -> list[Difference]:
    """The fields of two states of one thing that differ, by name; none where one of them is no state."""
    before, after = _fields(was), _fields(now)
    if before is None or after is None:
        return []
    names = sorted({*before, *after})
    return [Difference(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def body_before(entry: AuditEntry) -> dict[str, Any]:
    """What *entry* replaced or removed, as a body for the API. Raises ``InvalidRequest`` when it holds nothing such, or not all of it."""
    before = _fields(entry.before)
    if before is None:
        raise InvalidRequest("this change replaced nothing that could be put back")
    if not _can_return(before):
        raise InvalidRequest(
            "what was there before looked like a secret in part, and that part was not kept: it cannot be put back from here"
        )
    return before


def _can_return(before: Mapping[str, Any] | None) -> bool:
    """Whether *before* is all that there was: what the log left out as a secret must not come back as its placeholder."""
    return before is not None and not has_hidden(before)


def _fields(state: Any) -> dict[str, Any] | None:
    if not isinstance(state, Mapping) or "id" not in state:
        return None
    return {name: value for name, value in state.items() if name not in _SERVED}
