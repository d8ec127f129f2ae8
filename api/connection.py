"""What our HTTP protocol knows of a request's connection beyond what ASGI can say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from starlette.types import Scope

CONNECTION = "consilium.connection"
"""Key of the scope. Other servers, and tests without one, do not set it: everything works without."""


class Connection(Protocol):
    """Of one request."""

    @property
    def has_whole_body(self) -> bool:
        """Whether nothing of the body is still to come, so that nobody has to wait for it."""
        ...

    def when_lost(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Call *tell* when the caller has closed the connection, also when that is so already. Returns what ends the watch."""
        ...


def connection_of(scope: Scope) -> Connection | None:
    """None where the server tells none."""
    found: Connection | None = scope.get(CONNECTION)
    return found
