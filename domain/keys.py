"""API keys: who may come in, what each may see, and how much each may use."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from domain.access import Access


class Role(StrEnum):
    """What a key may do on the admin plane. Each may do what those before it may."""

    VIEWER = "viewer"
    """Read everything but the audit log."""
    EDITOR = "editor"
    """Change everything but keys."""
    OWNER = "owner"
    """Manage keys, read the audit log."""

    def includes(self, needed: Role) -> bool:
        """Whether this role may do what *needed* may."""
        order = tuple(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """How much a key may use; None bounds nothing. Days and months are UTC's."""

    requests_per_minute: int | None = None
    """In any 60 seconds."""
    tokens_per_minute: int | None = None
    """Prompts and answers of every call, in any 60 seconds."""
    max_concurrency: int | None = None
    """Requests at once."""
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None

    @property
    def are_none(self) -> bool:
        """Whether nothing is bounded."""
        return self == NO_LIMITS


NO_LIMITS = KeyLimits()


@dataclass(frozen=True, slots=True)
class KeySecret:
    """One secret of a key, as far as it is kept."""

    sha256: str
    """Hexadecimal. A plain hash is enough: secrets are 256 random bits, which nobody can try out."""
    prefix: str
    """Its first characters, to recognise it by."""
    until: float | None = None
    """When it stops to work (seconds since the epoch): of one that was rotated out. None: as long as the key does."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key. Times are seconds since the epoch. Never deleted, only revoked: what it used stays accounted for."""

    id: str
    name: str = ""
    """For people: whose it is, what for."""
    role: Role | None = None
    """On the admin plane; None keeps it out of there."""
    access: Access = Access()
    limits: KeyLimits = NO_LIMITS
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None
    secrets: tuple[KeySecret, ...] = field(default=(), repr=False)
    """The newest first."""
    version: int = 1

    @property
    def rights(self) -> Access:
        """``access`` and what the role adds to it: who may write strategies may try out what they would say."""
        edits = self.role is not None and self.role.includes(Role.EDITOR)
        return replace(self.access, may_fit=True) if edits else self.access

    def state(self, now: float) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "active"
