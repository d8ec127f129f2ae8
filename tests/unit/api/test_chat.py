"""``POST /v1/chat/completions``, answered at once."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from domain.errors import ExpertAuthFailed, ExpertOverloaded, ExpertProtocolError, ExpertUnreachable, NoEligibleExpert
from domain.experts import HealthState
from tests.fakes.services import FixedRouter, card, parts
from tests.fakes.workers import Fails, Says, Stalls

ASK: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "What is 6 times 7?"}]}


async def test_plain_answer(serve: Any, sdk: Any) -> None:
    """The OpenAI client reads the answer, the usage, the asked model's name and a chat completion's id."""
    http = await serve(parts({"maths": Says("42", reasoning="six sevens")}))
    answer = await sdk(http).chat.completions.create(**ASK)

    assert answer.choices[0].message.content == "42"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.reasoning_content == "six sevens"
    assert answer.model == "auto"
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage.total_tokens == 8


async def test_headers_say_who_answered(serve: Any) -> None:
    """Every answer tells its experts, skills, strategy, router, calls and times in headers."""
    http = await serve(parts({"maths": "42"}))
    response = await http.post("/v1/chat/completions", json=ASK, headers={"x-request-id": "abc-1"})

    headers = response.headers
    assert headers["x-request-id"] == "abc-1"
    assert headers["x-consilium-experts"] == "maths"
    assert headers["x-consilium-skills"] == "algebra"
    assert headers["x-consilium-strategy"] == "auto"
    assert headers["x-consilium-router"] == "fixed"
    assert headers["x-consilium-aggregator"] == "single"
    assert headers["x-consilium-calls"] == "1"
    assert float(headers["x-consilium-route-ms"]) >= 0
    assert float(headers["x-consilium-overhead-ms"]) >= 0
    assert "consilium" not in response.json()


@pytest.mark.parametrize("how", ["option", "header"])
async def test_explain(serve: Any, how: str) -> None:
    """The option or the header adds the object ``consilium`` with the decision, the calls and the times."""
    http = await serve(parts({"a": "1", "b": Fails(ExpertUnreachable("refused"))}))
    body = ASK | {"model": "consilium/panel"} | ({"consilium": {"explain": True}} if how == "option" else {})
    response = await http.post("/v1/chat/completions", json=body, headers={"x-consilium-explain": "1"} if how == "header" else {})

    told = response.json()["consilium"]
    assert told["strategy"] == "panel"
    assert told["router"] == "fixed"
    assert told["skills"] == [{"skill": "algebra", "similarity": 0.9, "weight": 1.0}]
    assert [(e["expert"], e["selected"]) for e in told["considered"]] == [("a", True), ("b", True)]
    assert response.headers["x-consilium-experts"] == "a"
    assert response.headers["x-consilium-calls"] == "2"
    calls = {call["expert"]: call for call in told["calls"]}
    assert calls["a"]["status"] == "ok"
    assert calls["a"]["usage"]["total_tokens"] == 8
    assert calls["b"]["status"] == "error"
    assert "refused" in calls["b"]["error"]
    assert {"route", "experts", "aggregate", "total", "overhead"} <= set(told["timings_ms"])


async def test_unknown_fields_reach_the_expert(serve: Any, sdk: Any) -> None:
    """Fields that the service does not know are passed on untouched; nulls and its own fields are not."""
    made = parts({"maths": "42"})
    http = await serve(made)
    await sdk(http).chat.completions.create(
        **ASK, temperature=0.25, stop=["\n"], extra_body={"top_k": 7, "guided": {"a": [1, None]}, "user": None, "consilium": {"k": 1}}
    )

    assert dict(made.workers.calls[0].params) == {"temperature": 0.25, "stop": ["\n"], "top_k": 7, "guided": {"a": [1, None]}}


async def test_messages_reach_the_expert_untouched(serve: Any) -> None:
    """Content parts and unknown keys of messages are passed on."""
    made = parts({"maths": "42"})
    http = await serve(made)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "input_audio", "input_audio": {"data": "x"}}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "7", "mood": "good"},
    ]
    response = await http.post("/v1/chat/completions", json={"model": "auto", "messages": messages})

    assert response.status_code == 200
    assert list(made.workers.calls[0].messages) == messages


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/route"])
async def test_a_request_without_a_model_is_told_what_to_write(serve: Any, path: str) -> None:
    """As at OpenAI a 400; what is meant by none is not guessed."""
    http = await serve(parts({"maths": "42"}))
    response = await http.post(path, json={"messages": ASK["messages"], "prompt": "hi"})

    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["type"]) == ("model", "invalid_request_error")
    assert "'auto' lets the service choose" in error["message"]


@pytest.mark.parametrize("model", ["auto", "auto:latest", "consilium/auto", "maths"])
async def test_model_names(serve: Any, model: str) -> None:
    """Strategies and experts are models, with ``:latest`` or without."""
    http = await serve(parts({"maths": "42"}))
    response = await http.post("/v1/chat/completions", json=ASK | {"model": model})

    assert response.json()["choices"][0]["message"]["content"] == "42"


@pytest.mark.parametrize("stream", [True, False])
async def test_one_expert_asked_for_by_id(serve: Any, stream: bool) -> None:
    """The strategy is then called ``explicit``, in the header and in the explain object."""
    http = await serve(parts({"maths": "42"}))
    body = ASK | {"model": "maths", "stream": stream, "consilium": {"explain": True}}
    response = await http.post("/v1/chat/completions", json=body)

    assert response.headers["x-consilium-strategy"] == "explicit"
    assert '"strategy":"explicit"' in response.text


@pytest.mark.parametrize(
    ("model", "step", "status", "strategy"),
    [
        ("auto", Fails(ExpertUnreachable("refused")), 502, "auto"),
        ("a", Fails(ExpertUnreachable("refused")), 502, "explicit"),
        ("consilium/panel", Fails(ExpertOverloaded("full")), 429, "panel"),
        ("auto", Stalls(), 504, "auto"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_an_error_of_the_service_tells_what_was_known(
    serve: Any, *, path: str, model: str, step: Any, status: int, strategy: str
) -> None:
    """Request id, strategy and router stand on 429, 502, 503 and 504 too."""
    http = await serve(parts({"a": step}))
    said = {"prompt": "hi"} if path == "/v1/completions" else {"messages": ASK["messages"]}
    response = await http.post(path, json={"model": model, "consilium": {"timeout_s": 0.05}} | said, headers={"x-request-id": "r-1"})

    assert response.status_code == status
    assert response.headers["x-request-id"] == "r-1"
    assert response.headers["x-consilium-strategy"] == strategy
    assert response.headers["x-consilium-router"] == ("explicit" if model == "a" else "fixed")


async def test_an_error_of_the_caller_is_not_about_a_strategy(serve: Any) -> None:
    """A 404 knows none."""
    response = await (await serve(parts({"a": "1"}))).post("/v1/chat/completions", json=ASK | {"model": "gpt"})

    assert not [name for name in response.headers if name.startswith("x-consilium-")]


async def refuses(*_: Any) -> Any:
    raise NoEligibleExpert("the query is like nothing that any expert was measured on")


async def test_a_lasting_refusal_is_not_retried(serve: Any, sdk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's client, which retries every 5xx by itself, asks once when the query is like nothing known."""
    import openai

    monkeypatch.setattr(FixedRouter, "route", refuses)
    made = parts({"a": "1"})
    http = await serve(made)
    with pytest.raises(openai.InternalServerError) as caught:
        await sdk(http).with_options(max_retries=2).chat.completions.create(**ASK)

    assert caught.value.status_code == 503
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(made.traces.traces) == 1


async def test_experts_that_refuse_for_good_are_not_asked_again(serve: Any) -> None:
    """A key that is wrong stays wrong; an expert that was not reachable may be back."""
    http = await serve(parts({"a": Fails(ExpertAuthFailed("wrong key")), "b": Fails(ExpertUnreachable("refused"))}))
    responses = [await http.post("/v1/chat/completions", json=ASK | {"model": model}) for model in ("a", "b", "consilium/panel")]

    assert [response.status_code for response in responses] == [502, 502, 502]
    assert [response.headers.get("x-should-retry") for response in responses] == ["false", None, None]


async def test_all_experts_fail(serve: Any, sdk: Any) -> None:
    """502 names every expert that failed, and how."""
    import openai

    http = await serve(parts({"a": Fails(ExpertUnreachable("refused")), "b": Fails(ExpertProtocolError("garbage"))}))
    with pytest.raises(openai.InternalServerError) as caught:
        await sdk(http).chat.completions.create(**ASK | {"model": "consilium/panel"})

    assert caught.value.status_code == 502
    assert caught.value.code == "all_experts_failed"
    assert [(e["expert"], e["code"]) for e in caught.value.body["experts"]] == [("a", "expert_unreachable"), ("b", "expert_protocol_error")]


async def test_busy_expert(serve: Any, sdk: Any) -> None:
    """429 says when to come back."""
    import openai

    http = await serve(parts({"a": Fails(ExpertOverloaded("full", retry_after_s=2.5))}))
    with pytest.raises(openai.RateLimitError) as caught:
        await sdk(http).chat.completions.create(**ASK)

    assert caught.value.response.headers["retry-after"] == "3"


async def test_no_eligible_expert(serve: Any) -> None:
    """503 says for each expert why it was filtered out."""
    made = parts({"a": "1"})
    made.directory.health["a"] = HealthState.OPEN
    http = await serve(made)
    response = await http.post("/v1/chat/completions", json=ASK)

    assert response.status_code == 503
    error = response.json()["error"]
    assert error["code"] == "no_eligible_expert"
    assert error["experts"][0]["expert"] == "a"
    assert "unhealthy" in error["experts"][0]["message"]
    assert "x-should-retry" not in response.headers, "the expert may be well again soon"


async def test_nobody_can_do_what_is_asked(serve: Any) -> None:
    """Everybody is healthy, nobody has the capability: asking again is of no use."""
    http = await serve(parts({}, card("a", capabilities=frozenset())))
    response = await http.post("/v1/chat/completions", json=ASK | {"n": 2})

    assert response.status_code == 503
    assert response.headers["x-should-retry"] == "false"


async def test_context_overflow(serve: Any) -> None:
    """A conversation that is too long for its expert is a 400 with OpenAI's code."""
    http = await serve(parts({"a": "1"}, card("a", context_length=64)))
    response = await http.post("/v1/chat/completions", json={"model": "a", "messages": [{"role": "user", "content": "word " * 500}]})

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert response.json()["error"]["param"] == "messages"


async def test_session_is_passed_on(serve: Any) -> None:
    """``x-session-id`` reaches the pipeline; one that cannot be a name is refused."""
    made = parts({"a": "1"})
    http = await serve(made)
    await http.post("/v1/chat/completions", json=ASK, headers={"x-session-id": "s-1"})
    refused = await http.post("/v1/chat/completions", json=ASK, headers={"x-session-id": "two words"})

    assert made.traces.traces[0].session_id == "s-1"
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "x-session-id"


async def test_not_ready(serve: Any, sdk: Any) -> None:
    """While the service starts, 503 says what is missing."""
    made = parts({"a": "1"})
    made.readiness.expect("encoder", "database")
    made.readiness.done("database")
    http = await serve(made)
    response = await http.post("/v1/chat/completions", json=ASK)

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "not_ready"
    assert "encoder" in response.json()["error"]["message"]
    assert "database" not in response.json()["error"]["message"]


async def test_answer_is_plain_json(serve: Any) -> None:
    """Text in any script and top-level fields of the expert survive."""
    http = await serve(parts({"a": "π ≈ 3 · 日本語 🙂"}))
    response = await http.post("/v1/chat/completions", json=ASK)

    assert response.headers["content-type"] == "application/json"
    assert orjson.loads(response.content)["choices"][0]["message"]["content"] == "π ≈ 3 · 日本語 🙂"
