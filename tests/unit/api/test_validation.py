"""Only the first thing that is wrong is looked for, however many there are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from api.schemas.batches import parse_batch
from api.schemas.chat import parse_chat
from api.schemas.completions import parse_completion
from domain.errors import InvalidRequest

HI = [{"role": "user", "content": "hi"}]
MANY = 100_000
BATCH = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}


def chat(payload: dict[str, Any]) -> object:
    return parse_chat({"model": "auto", **payload}, request_id="r")


def completion(payload: dict[str, Any]) -> object:
    return parse_completion({"model": "auto", **payload}, request_id="r")


def batch(payload: dict[str, Any]) -> object:
    return parse_batch(payload, batch_id="b", now=0.0, strategies={})


def keys(prefix: str = "key") -> dict[str, Any]:
    return {f"{prefix}{number}": None for number in range(MANY)}


@pytest.mark.parametrize(
    ("parse", "payload", "param"),
    [
        (chat, {"messages": HI, "consilium": keys()}, "consilium.key0"),
        (chat, {"messages": HI, "logit_bias": keys()}, "logit_bias"),
        (chat, {"messages": HI, "tools": [{}] * MANY}, "tools[0].type"),
        (chat, {"messages": [{}] * 4000}, "messages[0].role"),
        (chat, {"messages": [{"role": "user", "content": [{}] * 8000}]}, "messages[0].content[0].type"),
        (chat, {"messages": [{"role": "assistant", "tool_calls": [{}] * 1000}]}, "messages[0].tool_calls[0].id"),
        (chat, {"messages": HI, "consilium": {"allow": [1] * 1000}}, "consilium.allow[0]"),
        (completion, {"prompt": "hi", "consilium": keys()}, "consilium.key0"),
        (completion, {"prompt": "hi", "stop": [1] * MANY}, "stop[0]"),
        (batch, BATCH | keys(), "key0"),
        (batch, BATCH | {"consilium": keys()}, "consilium.key0"),
        (batch, BATCH | {"metadata": keys()}, "metadata"),
    ],
)
def test_one_error_is_made_of_many(parse: Callable[[dict[str, Any]], object], payload: dict[str, Any], param: str) -> None:
    """Each error that is made takes about a kilobyte, and several microseconds in which nobody else is answered."""
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest) as caught:
            parse(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert caught.value.param == param
    assert peak < 1_000_000
