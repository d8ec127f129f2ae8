"""Bounds that have to fit those of the other side."""

from __future__ import annotations

import uvicorn

from workers.limits import HttpLimits


def test_an_idle_connection_is_given_up_before_the_server_closes_it() -> None:
    """Most experts are served by uvicorn, vLLM's among them."""
    assert HttpLimits().keep_alive_s < uvicorn.Config(app="any:app").timeout_keep_alive
