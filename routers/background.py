"""Long computations beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def computed(work: Callable[[], T], *, name: str) -> T:
    """What *work* returns, in a thread of its own that nobody waits for when the process ends.

    ``asyncio.to_thread`` would keep the process alive until a fit of minutes is over. When the caller is cancelled the
    computation goes on, and its result is dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def told(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # T where there is no error

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001  # raised again where it is waited for
            error = raised
        try:
            loop.call_soon_threadsafe(told, result, error)
        except RuntimeError:
            """The loop is closed: nobody waits any more."""

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
