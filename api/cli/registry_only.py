"""A service whose registry is there and whose encoder and experts are not: for commands that look at or change what is known.

It starts in about a second, and what is wrong with the database ends the command at once instead of being tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from api.metrics import Metrics
    from api.services import Services
    from api.settings import Settings


@asynccontextmanager
async def registry_only(settings: Settings, metrics: Metrics) -> AsyncIterator[Services]:
    """The process's parts, with the database open and nothing else loaded. Raises what opening the database raises."""
    from api.bootstrap import build, seed_of

    services = await asyncio.to_thread(build, settings, metrics)
    services.readiness.expect("database", "encoder", "index", "experts")
    for part in ("encoder", "index", "experts"):
        services.readiness.set(part, "not needed by this command")
    try:
        await services.database.upgrade()
        await seed_of(services)()
        await services.directory.start()
        services.readiness.done("database")
        yield services
    finally:
        await services.directory.close()
        await services.workers.close()
        await services.database.close()
