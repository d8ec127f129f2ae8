"""API keys as people write them: the bodies of the admin REST. Strict, as cards are."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from domain.access import Access
from domain.keys import ApiKey, KeyLimits, Role
from experts_registry.fields import one_of
from experts_registry.models import Names, StrategyId, Text

MAX_ROTATION_S = 30 * 86_400
"""Longest that a replaced secret may go on to work."""
_RESERVED = frozenset({"admin", "settings", "anybody", "usage"})
"""What callers without a stored key are called, and a part of the keys' address."""
_MAX_COUNT = 2**53 - 1
"""Of tokens: the largest whole number that every JSON reader knows."""


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


def _no_reserved_id(value: str) -> str:
    if value in _RESERVED:
        raise ValueError(f"{value!r} is reserved: choose another id")
    return value


def timestamp(value: object) -> object:
    """Seconds since the epoch, also of a date ("2026-12-31", its end) or of a moment with its zone ("2026-12-31T12:00:00Z")."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("must be seconds since the epoch, a date (2026-12-31) or a moment (2026-12-31T12:00:00Z)") from None
    if len(value) == len("2026-12-31"):
        moment = moment.replace(hour=23, minute=59, second=59, tzinfo=UTC)
    elif moment.tzinfo is None:
        raise ValueError("must name its time zone, as in 2026-12-31T12:00:00Z")
    return moment.timestamp()


class LimitsModel(_Model):
    """How much a key may use; what is left out bounds nothing. Days and months are UTC's."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=_MAX_COUNT)
    """Requests in any 60 seconds."""
    tokens_per_minute: int | None = Field(default=None, ge=1, le=_MAX_COUNT)
    """Tokens, of prompts and answers of every call, in any 60 seconds."""
    max_concurrency: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests at once."""
    tokens_per_day: int | None = Field(default=None, ge=1, le=_MAX_COUNT)
    tokens_per_month: int | None = Field(default=None, ge=1, le=_MAX_COUNT)
    usd_per_day: float | None = Field(default=None, gt=0, le=1e6)
    """US dollars, by the prices on the experts' cards."""
    usd_per_month: float | None = Field(default=None, gt=0, le=1e6)


class KeyModel(_Model):
    """One API key."""

    id: Annotated[StrategyId, AfterValidator(_no_reserved_id)]
    """Lower-case letters, digits, dots, dashes and underscores; never used again after the key is revoked."""
    version: int | None = None
    """Given by the registry; what is written here is not stored."""
    name: Text = Field(default="", max_length=256)
    """For people: whose it is, what for."""
    role: Annotated[Role | None, BeforeValidator(lambda value: None if value is None else one_of(Role)(value))] = None
    """On the admin plane: ``viewer``, ``editor`` or ``owner``. Left out: none."""
    labels: Names = []
    """Access labels that it holds; ``*`` is every one."""
    experts: Names | None = None
    """The only experts that it may use, by id; left out: every one that its labels allow."""
    strategies: Names | None = None
    """The only strategies; left out: every one."""
    limits: LimitsModel = LimitsModel()
    expires_at: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(timestamp)] = None
    """When it stops to work: seconds since the epoch, a date or a moment with its time zone. Left out: never."""

    @classmethod
    def from_key(cls, key: ApiKey) -> KeyModel:
        """The key as people write it. Not checked: what is stored can always be shown."""
        access = key.access
        return cls.model_construct(
            id=key.id,
            version=key.version,
            name=key.name,
            role=key.role,
            labels=["*"] if access.all_labels else sorted(access.labels),
            experts=None if access.experts is None else sorted(access.experts),
            strategies=None if access.strategies is None else sorted(access.strategies),
            limits=LimitsModel.model_construct(**asdict(key.limits)),
            expires_at=key.expires_at,
        )

    def to_key(self) -> ApiKey:
        return ApiKey(
            id=self.id,
            name=self.name,
            role=self.role,
            access=Access(
                labels=frozenset(self.labels) - {"*"},
                experts=None if self.experts is None else frozenset(self.experts),
                strategies=None if self.strategies is None else frozenset(self.strategies),
                all_labels="*" in self.labels,
            ),
            limits=KeyLimits(**self.limits.model_dump()),
            expires_at=self.expires_at,
        )


class RotateModel(_Model):
    """How a key's secret is replaced."""

    overlap_s: float = Field(default=0.0, ge=0, le=MAX_ROTATION_S)
    """Seconds for which the secrets before it go on to work."""
