"""What a request may ask of experts in this process, and what it may not."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain.errors import ExpertOverloaded, ExpertRejected, ExpertTimeout
from domain.experts import Backend
from domain.plan import Candidate
from tests.contract.workers.cases import Case, call_of, embedded_case
from workers.embedded.grammar import GrammarCompiler
from workers.embedded.model import LoadedModel
from workers.embedded.worker import EmbeddedWorker
from workers.limits import EmbeddedLimits


@pytest.fixture(name="case")
async def _case(models_folder: Path) -> AsyncIterator[Case]:
    async with embedded_case(models_folder) as case:
        yield case


async def test_slow_schemas_delay_nobody_else(case: Case, models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait for each other in a bounded queue, no longer than their deadlines, and a plain call passes them by."""
    release, compile_ = threading.Event(), GrammarCompiler.compile
    begun = []

    def slow(compiler: GrammarCompiler, constraint: Any) -> Any:
        begun.append(1)
        release.wait()
        return compile_(compiler, constraint)

    monkeypatch.setattr(GrammarCompiler, "compile", slow)
    json_object = {"response_format": {"type": "json_object"}, "max_tokens": 40}
    worker = EmbeddedWorker(models_folder, EmbeddedLimits(max_compiling=40))
    await worker.start()
    await worker.complete(call_of(case.speaker))  # loads the model: from here on nothing else is waited for before a schema's turn
    waiting = [asyncio.create_task(worker.complete(call_of(case.speaker, **json_object))) for _ in range(40)]
    while not begun:
        await asyncio.sleep(0)

    assert (await worker.complete(call_of(case.speaker))).text == "abcdefghij"
    with pytest.raises(ExpertOverloaded, match="schemas wait"):
        await worker.complete(call_of(case.speaker, **json_object))
    with pytest.raises(ExpertTimeout, match="deadline") as caught:
        await case.pool.complete(call_of(case.speaker, timeout_s=0.05, **json_object))
    assert not caught.value.expert_at_fault
    for task in waiting[2:]:
        task.cancel()
    await asyncio.wait(waiting[2:])
    release.set()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    await worker.close()

    assert [type(outcome) for outcome in done] == [Candidate] * 2 + [asyncio.CancelledError] * 38
    assert len(begun) <= 3  # the pool's one, and two here: who left the queue is not compiled


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"temperature": 3}, "temperature must be a number from 0 to 2"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": float("nan")}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 1000}, "n must be"),
        ({"stop": [1]}, "stop"),
        ({"temperature": 10**400}, "temperature"),
        ({"logit_bias": {"a": 1}}, "logit_bias: 'a' is no token id"),
        ({"logit_bias": {"288": 1}}, "logit_bias: '288' is no token id of this expert"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 1e39}}, r"logit_bias\[5\] must be a number from -100 to 100"),
        ({"logit_bias": {"5": float("nan")}}, r"logit_bias\[5\]"),
        ({"logit_bias": {"5": "1"}}, r"logit_bias\[5\]"),
        ({"logit_bias": [5]}, "logit_bias must be an object"),
        ({"top_logprobs": 99, "logprobs": True}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}}, "cannot be enforced"),
        ({"tool_choice": "required"}, "tools is empty"),
        ({"tool_choice": {"type": "function", "function": {"name": "a"}}}, "not among tools"),
        ({"tool_choice": "perhaps"}, "tool_choice must be"),
        ({"tools": [{"function": {"name": "a b"}}], "tool_choice": "required"}, r"tools\[0\].function.name"),
    ],
)
async def test_a_bad_field_is_rejected_by_name(case: Case, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ExpertRejected, match=message) as caught:
        await case.pool.complete(call_of(case.speaker, **params))

    assert str(caught.value.param).partition(".")[0].partition("[")[0] in params


BAD_TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"response_format": {"type": "json_shema"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "strnig"}}}}, "response_format"),
        ({"tool_choice": "requird", "tools": [BAD_TOOL]}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "wether"}}, "tools": [BAD_TOOL]}, "tool_choice"),
        ({"max_tokens": 10**18}, "max_tokens"),
        ({"max_completion_tokens": 10**18}, "max_completion_tokens"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"logit_bias": {"first": 1}}, "logit_bias"),
    ],
)
@pytest.mark.parametrize("size", [1, 100_000])
async def test_the_field_that_is_rejected_is_told_and_its_value_only_shortly(
    case: Case, params: dict[str, Any], param: str, size: int
) -> None:
    params = json.loads(json.dumps(params).replace("wether", "wether" * size).replace("json_shema", "json_shema" * size))
    with pytest.raises(ExpertRejected) as caught:
        await case.pool.complete(call_of(case.speaker, **params))

    assert caught.value.param == param
    assert len(caught.value.message) < 700


@pytest.mark.parametrize(
    "name",
    ["chat_template", "tokenize", "add_generation_prompt", "messages", "conversation", "tools", "documents", "return_dict", "return_x",
     "continue_final_message", "tokenizer_kwargs", "raise_exception", "eos_token", "_x", "a b"],
)  # fmt: skip
async def test_a_caller_cannot_change_how_a_chat_is_rendered(case: Case, name: str) -> None:
    with pytest.raises(ExpertRejected, match=f"chat_template_kwargs.{name}"):
        await case.pool.complete(call_of(case.speaker, chat_template_kwargs={name: "{{ 1 }}"}))


@pytest.mark.parametrize("flag", [{"a": 1}, [1], float("nan"), "x" * 1000])
async def test_a_flag_for_the_template_is_a_plain_value(case: Case, flag: Any) -> None:
    with pytest.raises(ExpertRejected, match=r"chat_template_kwargs\.thinking must be"):
        await case.pool.complete(call_of(case.speaker, chat_template_kwargs={"thinking": flag}))
    with pytest.raises(ExpertRejected, match="chat_template_kwargs must be an object"):
        await case.pool.complete(call_of(case.speaker, chat_template_kwargs=[flag]))


async def test_the_template_reads_its_flags_off_the_event_loop(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered, prompt_of = [], LoadedModel.prompt_of

    def spy(model: LoadedModel, messages: Any, params: Any) -> list[int]:
        rendered.append(threading.current_thread() is threading.main_thread())
        return prompt_of(model, messages, params)

    monkeypatch.setattr(LoadedModel, "prompt_of", spy)
    worker: Any = case.pool._workers[Backend.EMBEDDED]
    template = "{% if thinking %}ab{% else %}abcdef{% endif %}"
    monkeypatch.setattr(worker._models["speaker", None].tokenizer, "chat_template", template)
    flagged = await case.pool.complete(call_of(case.speaker, max_tokens=1, chat_template_kwargs={"thinking": True}))
    plain = await case.pool.complete(call_of(case.speaker, max_tokens=1))

    assert (flagged.usage.prompt_tokens, plain.usage.prompt_tokens) == (2, 6)
    assert rendered == [False, True]


async def test_content_parts_are_read_and_pictures_refused(case: Case) -> None:
    parts = [{"type": "text", "text": "Say"}, {"type": "text", "text": "it."}]
    call = replace(call_of(case.speaker), messages=({"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}))
    picture = replace(call, messages=({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},))

    assert (await case.pool.complete(call)).text == "abcdefghij"
    with pytest.raises(ExpertRejected, match="text only, not image_url"):
        await case.pool.complete(picture)


async def test_a_prompt_of_unknown_tokens_is_rejected(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer may know more tokens than the weights do."""
    monkeypatch.setattr(LoadedModel, "vocab_size", 40)

    with pytest.raises(ExpertRejected, match="unknown token"):
        await case.pool.complete(call_of(case.speaker))
