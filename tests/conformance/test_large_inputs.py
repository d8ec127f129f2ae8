"""What is large is handled or refused clearly: 24 MB of upload, a prompt of 200,000 tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from api.app import create_app
from api.settings import Settings
from tests.fakes.services import card, parts
from tests.integration.api.conftest import listening

pytestmark = pytest.mark.timeout(300)

MB = 1_000_000
WORDS = " ".join(["consilium"] * 200_000)
"""No tokenizer makes less than a token of each."""
HI: Any = [{"role": "user", "content": "Write MCMXCIV in Arabic numerals."}]


def test_a_file_of_24_mb_is_taken_and_read(client: OpenAI) -> None:
    line = {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "numerals", "messages": HI, "user": "x" * 1000},
    }
    text = json.dumps(line)
    lines = "".join(text.replace('"1"', f'"{number}"', 1) + "\n" for number in range(24 * MB // len(text) + 1)).encode()
    assert len(lines) > 24 * MB
    uploaded = client.files.create(file=("large.jsonl", lines), purpose="batch")
    try:
        assert uploaded.bytes == len(lines)
        assert client.files.content(uploaded.id).read() == lines
    finally:
        client.files.delete(uploaded.id)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_of_24_mb_is_refused_with_413(client: OpenAI, stream: bool) -> None:
    """By a status that the client hears, although it is still sending."""
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "x" * (24 * MB)}], stream=stream)

    assert refused.value.status_code == 413
    assert refused.value.body["code"] == "payload_too_large"  # type: ignore[index]
    assert "CONSILIUM_MAX_BODY_BYTES" in str(refused.value)
    assert client.chat.completions.create(model="auto", messages=HI).choices[0].message.content == "1994"


@pytest.mark.parametrize("model", ["auto", "numerals", "consilium/panel"])
def test_a_prompt_of_200_000_tokens_is_refused_with_the_context_that_there_is(client: OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": WORDS}])

    assert refused.value.code == "context_length_exceeded"
    assert "512" in str(refused.value)


async def test_a_prompt_of_200_000_tokens_reaches_an_expert_that_can_take_it_whole(tmp_path: Path) -> None:
    made = parts({"large": "42"}, card("large", context_length=1_000_000))
    app = create_app(Settings(_env_file=None, data_dir=tmp_path), bootstrap=made.bootstrap())  # type: ignore[call-arg]
    async with listening(app) as url, AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answer = await client.chat.completions.create(model="large", messages=[{"role": "user", "content": WORDS}])

    assert answer.choices[0].message.content == "42"
    assert made.workers.calls[0].messages[0]["content"] == WORDS
