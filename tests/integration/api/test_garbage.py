"""What a request leaves behind, however it ends: nothing that holds it."""

from __future__ import annotations

import asyncio
import gc
import logging
from pathlib import Path
from typing import Any, cast

import pytest

from api.app import create_app
from api.settings import Settings
from domain.chat import ChatRequest
from domain.plan import ExpertCall
from tests.fakes.asgi import Exchange
from tests.fakes.services import card, parts
from tests.fakes.upstream import ErrorEvent, Fault, HalfStream, Hangup, Stall, Status, running_upstream
from workers.limits import PoolLimits
from workers.pool import WorkerPool

PATH = "/v1/chat/completions"
LIMITS = PoolLimits(retry_wait_initial_s=0.0, retry_wait_max_s=0.0)
FAULTS: dict[str, Fault | None] = {
    "none": None,
    "refuses": Status(400),
    "fails": Status(500),
    "hangs up": Hangup(),
    "breaks off": HalfStream(cut=True),
    "dies": ErrorEvent(),
    "is left": Stall(after=2),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_request_is_freed_without_the_garbage_collector(tmp_path: Path, fault: str, stream: bool) -> None:
    """It seldom looks, and a request is as large as its body: an outage must not fill the memory."""
    async with running_upstream() as upstream:
        pool = WorkerPool(embedded_dir=tmp_path, limits=LIMITS)
        made = parts({"speaker": ""}, card("speaker", base_url=upstream.base_url))
        made.workers = cast(Any, pool)
        app = create_app(Settings(_env_file=None, data_dir=tmp_path), bootstrap=made.bootstrap())  # type: ignore[call-arg]
        async with app.router.lifespan_context(app):
            logging.disable()  # pytest keeps every record, with the errors that are told
            gc.freeze()  # what was there before is not looked through
            gc.disable()
            try:
                upstream.faults.extend([FAULTS[fault]] * LIMITS.max_attempts)
                exchange = Exchange(app, PATH, {"model": "auto", "messages": [{"role": "user", "content": "hi"}], "stream": stream})
                answered = exchange.start()
                if fault == "is left":
                    await upstream.until_open(1)
                    exchange.leave()
                await answered
                del exchange, answered
                await asyncio.sleep(0)  # whoever was cancelled has ended
                left = [found for found in gc.get_objects() if type(found) in (ChatRequest, ExpertCall)]
            finally:
                gc.enable()
                gc.unfreeze()
                logging.disable(logging.NOTSET)
                await pool.close()

    assert not left
