"""The end of the process: what runs may finish, what comes is sent elsewhere."""

from __future__ import annotations

import asyncio

from domain.errors import NotReady

RETRY_AFTER_S = 1.0
"""When a request that came too late may ask again: another replica is there already, a restarted one in some seconds."""

ADMITTED = "consilium.admitted"
"""Key of the scope: the request is a part of one that was let in, and is counted with it."""


class Drain:
    """Counts the requests that run, and says whether further ones are let in. One for each process."""

    def __init__(self) -> None:
        self.num_running = 0
        self._has_begun = False
        self._idle = asyncio.Event()

    @property
    def has_begun(self) -> bool:
        """Whether the process is about to end."""
        return self._has_begun

    def begin(self) -> None:
        """Let nobody in from now on."""
        self._has_begun = True
        self._look()

    def enter(self) -> None:
        """A request begins to run; whoever returns from here has to ``leave``. Raises ``NotReady`` when the process is about to end."""
        if self._has_begun:
            raise NotReady("the service is about to stop and takes no further requests: ask again", retry_after_s=RETRY_AFTER_S)
        self.num_running += 1

    def leave(self) -> None:
        """A request is over, its answer sent."""
        self.num_running -= 1
        self._look()

    async def until_idle(self) -> None:
        """Return when ``begin`` was called and nothing runs any more."""
        await self._idle.wait()

    def _look(self) -> None:
        if self._has_begun and not self.num_running:
            self._idle.set()
