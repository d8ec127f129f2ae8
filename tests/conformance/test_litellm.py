"""LiteLLM as a client of the served zoo: ``openai/<model>`` with an ``api_base``."""

from __future__ import annotations

import gc
import inspect
import json
from collections.abc import Iterator
from typing import Any

import litellm
import pytest

from tests.conformance.conftest import KEY
from tests.contract.workers.cases import LITELLM_WARNINGS

pytestmark = [
    pytest.mark.timeout(300),
    *(pytest.mark.filterwarnings(f"ignore:{text}") for text in LITELLM_WARNINGS),
    # LiteLLM leaves event loops of its own to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROMAN = [{"role": "user", "content": "Write MCMXCIV in Arabic numerals."}]
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "report", "parameters": SCHEMA}}


@pytest.fixture(scope="module", autouse=True)
def _cleared_away() -> Iterator[None]:
    """LiteLLM's clients are closed here: it keeps them, and a later test would be told of their open connections."""
    yield
    cache = litellm.in_memory_llm_clients_cache
    for client in list(cache.cache_dict.values()):
        if callable(close := getattr(client, "close", None)) and not inspect.iscoroutinefunction(close):
            close()
    cache.flush_cache()
    gc.collect()


@pytest.fixture
def given(base_url: str) -> dict[str, Any]:
    """How the service is named. Without the last, requests with tools need a library that LiteLLM does not install by itself."""
    return {"api_base": base_url, "api_key": KEY, "timeout": 60, "num_retries": 0, "_skip_mcp_handler": True}


def test_completion(given: dict[str, Any]) -> None:
    made: Any = litellm.completion("openai/auto", ROMAN, **given)

    assert made.choices[0].message.content == "1994"
    assert made.choices[0].finish_reason == "stop"
    assert made.usage.total_tokens > 0


def test_stream(given: dict[str, Any]) -> None:
    pieces: Any = list(litellm.completion("openai/auto", ROMAN, stream=True, stream_options={"include_usage": True}, **given))
    whole: Any = litellm.stream_chunk_builder(pieces)

    assert whole.choices[0].message.content == "1994"
    assert whole.usage.completion_tokens > 0


async def test_acompletion(given: dict[str, Any]) -> None:
    made: Any = await litellm.acompletion("openai/numerals", ROMAN, **given)

    assert made.choices[0].message.content == "1994"


@pytest.mark.parametrize("model", ["openai/auto", "openai/numerals"])
def test_tools_and_a_json_schema(given: dict[str, Any], model: str) -> None:
    called: Any = litellm.completion(model, ROMAN, tools=[TOOL], tool_choice="required", **given)
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    as_json: Any = litellm.completion(model, ROMAN, response_format=wanted, **given)

    (call,) = called.choices[0].message.tool_calls
    assert call.function.name == "report"
    assert isinstance(json.loads(call.function.arguments)["answer"], int)
    assert isinstance(json.loads(as_json.choices[0].message.content)["answer"], int)


def test_embedding(given: dict[str, Any]) -> None:
    made: Any = litellm.embedding("openai/all-MiniLM-L6-v2", ["seven plus five"], **given)

    assert len(made.data[0]["embedding"]) == 384


def test_errors_are_translated(given: dict[str, Any]) -> None:
    """Each into the exception that LiteLLM has for it, so that its fallbacks and retries work."""
    with pytest.raises(litellm.NotFoundError):
        litellm.completion("openai/numeral", ROMAN, **given)
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion("openai/auto", ROMAN, **{**given, "api_key": "nobody's"})
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion("openai/numerals", [{"role": "user", "content": "X" * 2000}], **given)
    with pytest.raises(litellm.BadRequestError):
        litellm.completion("openai/auto", ROMAN, temperature=7, **given)
