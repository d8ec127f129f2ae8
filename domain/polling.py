"""Following what other processes write, by looking again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from domain.errors import ConsiliumError


async def keep_looking(look: Callable[[], Awaitable[object]], every_s: float, *, what: str, log: logging.Logger) -> None:
    """Call *look*, which reads *what*, every *every_s* seconds until cancelled. Raises nothing that *look* does: an error of the tree is
    told to *log* once, until a look succeeds again, and a fault of ours each time, since the next look may be fine."""
    failing = False
    while True:
        try:
            await look()
            failing = False
        except ConsiliumError as error:
            if not failing:
                log.warning("%s cannot be read, requests go on with what is known: %s", what, error)
            failing = True
        except Exception:
            log.exception("reading %s failed", what)
        await asyncio.sleep(every_s)
