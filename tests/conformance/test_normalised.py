"""What an expert's server answers loosely goes out as OpenAI specifies it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import httpx
import llm_comply
import pytest
from llm_comply.schema import SpecLoader

from api.app import create_app
from api.settings import Settings
from tests.fakes.services import card, parts
from tests.fakes.upstream import Garbage, running_upstream
from workers.limits import PoolLimits
from workers.pool import WorkerPool

SPEC = Path(llm_comply.__file__).with_name("specs") / "openai_chat.json"
OF_VLLM: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "served",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "42",
                "refusal": None,
                "annotations": None,
                "audio": None,
                "function_call": None,
                "tool_calls": [],
                "reasoning": None,
                "reasoning_content": None,
            },
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
            "token_ids": None,
        }
    ],
    "service_tier": None,
    "system_fingerprint": None,
    "usage": {"prompt_tokens": 3, "total_tokens": 4, "completion_tokens": 1, "prompt_tokens_details": None},
    "prompt_logprobs": None,
    "prompt_token_ids": None,
    "kv_transfer_params": None,
}
"""As a vLLM server writes an answer: a null for everything that it does not have."""


def problems(answer: Any) -> list[str]:
    """What OpenAI's own specification, as llm-comply brings it, has against *answer*."""
    found: list[str] = SpecLoader(str(SPEC)).validate(answer, "CreateChatCompletionResponse")
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the tool resolves references in jsonschema's older way
async def test_nulls_where_openai_has_none_are_left_out(tmp_path: Path) -> None:
    async with running_upstream() as upstream:
        upstream.faults.append(Garbage(json.dumps(OF_VLLM)))
        pool = WorkerPool(embedded_dir=tmp_path, limits=PoolLimits())
        made = parts({"served": ""}, card("served", base_url=upstream.base_url))
        made.workers = cast(Any, pool)
        app = create_app(Settings(_env_file=None, data_dir=tmp_path), bootstrap=made.bootstrap())  # type: ignore[call-arg]
        async with app.router.lifespan_context(app):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as http:
                body = {"model": "served", "messages": [{"role": "user", "content": "What is 6 times 7?"}]}
                answer = (await http.post("/v1/chat/completions", json=body)).json()
            await pool.close()

    assert len(problems(OF_VLLM)) > 2
    assert problems(answer) == []
    assert answer["choices"][0]["message"]["content"] == "42"
