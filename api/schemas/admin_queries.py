"""Query strings of the admin plane. An unknown parameter is an error, as an unknown key of a body is."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from domain.experts import Backend, HealthState
from experts_registry.fields import one_of

MAX_PAGE = 1000
"""Most rows of one page: a few megabytes of the largest rows there are (traces)."""

Moment = Annotated[float, Field(ge=0, le=253_402_300_799)]
"""Seconds since the epoch, up to the year 9999."""


class Query(BaseModel):
    """Values come as text, so they are converted, unlike those of a body."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class PageQuery(Query):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100
    """Most rows of this page."""
    cursor: str | None = None
    """`next` of the page before."""


class LogsQuery(Query):
    """How much of a log."""

    lines: Annotated[int, Field(ge=1, le=10_000)] = 200
    """The last so many."""


class ExpertsQuery(PageQuery):
    backend: Annotated[Backend | None, BeforeValidator(one_of(Backend))] = None
    skill: str | None = None
    """Only experts that declare it."""
    enabled: bool | None = None
    health: Annotated[HealthState | None, BeforeValidator(one_of(HealthState))] = None


class QuestionsQuery(PageQuery):
    skill: str | None = None
    category: str | None = None


class RunsQuery(PageQuery):
    status: Annotated[str | None, BeforeValidator(one_of(["running", "open", "finished", "rolled_back"]))] = None
    """`open` is a run that was interrupted, or that another process works on."""


class CategoryMapQuery(Query):
    budget_b: Annotated[float | None, Field(gt=0)] = None
    """Billions of parameters that all kept experts may have together."""
    budget_mb: Annotated[float | None, Field(gt=0)] = None
    """MB that all kept experts may take together; instead of `budget_b`."""
    generalist: str | None = None
    """Who answers what belongs to no category clearly; the best over everything when left out."""


class TracesQuery(PageQuery):
    request_id: str | None = None
    """`x-request-id` of the answer. Callers may choose it, so several requests may have the same."""
    expert: str | None = None
    """Only requests that called it."""
    strategy: str | None = None
    model: str | None = None
    """As asked for."""
    status: Annotated[str | None, BeforeValidator(one_of(["ok", "error", "cancelled"]))] = None
    since: Moment | None = None
    """Seconds since the epoch."""
    until: Moment | None = None
    """Seconds since the epoch; that moment itself is out."""


class FeedbackQuery(PageQuery):
    request_id: str | None = None
    """`x-request-id` of the answer that was judged."""
    expert: str | None = None
    """Only what speaks of it."""
    status: Annotated[str | None, BeforeValidator(one_of(["counts", "rolled_back"]))] = None


Tenant = Annotated[str, Field(min_length=1, max_length=64)]
"""A key's id; `_local` is who comes in without a stored one."""


class MemoryQuery(PageQuery):
    tenant: Tenant | None = None
    """Only this one's: a key's id, or `_local` for who comes in without a stored one."""


class ClearMemoryQuery(Query):
    tenant: Tenant
    """Whose problems: a key's id, or `_local` for who comes in without a stored one."""


class ForgetQuery(Query):
    before: Moment
    """Seconds since the epoch: requests that began earlier are forgotten."""


class ApplyQuery(Query):
    prune: bool = False
    """Remove what the manifest does not name."""
    dry_run: bool = False
    """Only tell what would change."""


Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
"""Of UTC: 2026-11-22."""


class UsageQuery(Query):
    key: str | None = None
    """Only this key's."""
    since: Day | None = None
    """From this day on."""
    until: Day | None = None
    """Up to this day, included."""
    format: Annotated[str, BeforeValidator(one_of(["json", "csv"]))] = "json"


class AuditQuery(PageQuery):
    actor: str | None = None
    """A key's id; `admin` is the admin key."""
    path: str | None = None
    """How the address begins, as in `/admin/api/experts`."""
    since: Moment | None = None
    """Seconds since the epoch, included."""
    until: Moment | None = None
    """Seconds since the epoch, not included."""
