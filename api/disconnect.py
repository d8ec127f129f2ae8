"""A caller that goes away cancels what runs for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import Receive, Scope

from api.connection import connection_of

T = TypeVar("T")


class ClientGone(Exception):
    """The caller closed the connection before there was an answer. Nobody is left to be told."""


async def disconnected(receive: Receive) -> None:
    """Return when the caller has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of *work*; when the caller goes away first, *work* is cancelled, waited for, and ``ClientGone`` is raised.

    The body must have been read before: from then on the connection says only that it was closed.
    """
    return await while_connected(request.scope, request.receive, work)


async def while_connected(scope: Scope, receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The same for what *scope* and *receive* belong to. *work* runs in the task of whoever waits for it, as it would without us: a
    task of its own would cost more than most of what is done for a request."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a caller can only be watched from a task")
    is_running, is_gone, before = True, False, task.cancelling()

    def end() -> None:
        nonlocal is_gone
        if is_running and not is_gone:
            is_gone = True
            task.cancel()

    connection = connection_of(scope)
    stop_watching = _watch(receive, end) if connection is None else connection.when_lost(end)
    try:
        return await work
    except asyncio.CancelledError:
        if is_gone and task.cancelling() - 1 <= before:  # else somebody else cancels us as well
            raise ClientGone from None
        raise
    finally:
        is_running = False
        if is_gone:
            task.uncancel()
        stop_watching()


def _watch(receive: Receive, end: Callable[[], None]) -> Callable[[], object]:
    """Call *end* when *receive* says that the caller is gone; a task does, which costs a tenth of a plain answer."""

    def tell(watch: asyncio.Future[None]) -> None:
        if not watch.cancelled():
            watch.exception()  # retrieved, so that nobody is warned about it: a connection that breaks is gone, too
            end()

    watch = asyncio.ensure_future(disconnected(receive))
    watch.add_done_callback(tell)
    return watch.cancel


async def stop(*tasks: asyncio.Future[Any]) -> None:
    """Cancel *tasks* and wait until they have ended, whatever they end with."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
