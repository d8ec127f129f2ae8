"""Plain completions, models, embeddings, routing, health and metrics."""

from __future__ import annotations

import base64
import re
import struct
from pathlib import Path
from typing import Any

import openai
import pytest

from api.embedding_answers import INLINE_TEXTS
from domain.errors import ExpertUnreachable, StorageError
from domain.experts import HealthState
from tests.fakes.services import card, parts
from tests.fakes.workers import Fails, Says

USER = [{"role": "user", "content": "What is 6 times 7?"}]

# --- completions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["6 times 7?", ["6 times 7?"]])
async def test_completion(serve: Any, sdk: Any, prompt: Any) -> None:
    """The prompt becomes the only user message; the answer has OpenAI's text shape."""
    made = parts({"maths": "42"})
    answer = await sdk(await serve(made)).completions.create(model="auto", prompt=prompt, max_tokens=5)

    assert answer.object == "text_completion"
    assert answer.choices[0].text == "42"
    assert answer.usage.total_tokens == 8
    assert made.workers.calls[0].messages == ({"role": "user", "content": "6 times 7?"},)
    assert dict(made.workers.calls[0].params) == {"max_tokens": 5}


async def test_completion_stream(serve: Any, sdk: Any) -> None:
    """Pieces are text pieces; with ``echo`` the prompt comes first, once."""
    http = await serve(parts({"maths": Says("42", pieces=("4", "2"))}))
    stream = await sdk(http).completions.create(model="auto", prompt="Q:", stream=True, echo=True)
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].text for chunk in chunks) == "Q:42"
    assert chunks[0].object == "text_completion"
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_completion_echo(serve: Any, sdk: Any) -> None:
    """``echo`` puts the prompt before the answer."""
    answer = await sdk(await serve(parts({"maths": "42"}))).completions.create(model="auto", prompt="Q:", echo=True)

    assert answer.choices[0].text == "Q:42"


async def test_completion_logprobs(serve: Any) -> None:
    """``logprobs`` is asked of the expert in the chat's way."""
    made = parts({"maths": "42"})
    http = await serve(made)
    await http.post("/v1/completions", json={"model": "auto", "prompt": "Q", "logprobs": 3})

    assert dict(made.workers.calls[0].params) == {"logprobs": True, "top_logprobs": 3}


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({}, "prompt", "is missing"),
        ({"prompt": [1, 2]}, "prompt", "token ids"),
        ({"prompt": [[1, 2]]}, "prompt", "token ids"),
        ({"prompt": ["a", "b"]}, "prompt", "one prompt a request, not 2"),
        ({"prompt": []}, "prompt", "one prompt"),
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": 7}, "prompt", "a string or a list"),
        ({"prompt": "a", "suffix": "b"}, "suffix", "not supported"),
        ({"prompt": "a", "best_of": 3}, "best_of", "use n"),
        ({"prompt": "a", "temperature": "x"}, "temperature", "a number"),
        ({"prompt": "a", "consilium": {"sed": 1}}, "consilium.sed", "did you mean 'seed'?"),
    ],
)
async def test_bad_completion(serve: Any, change: dict[str, Any], param: str, words: str) -> None:
    """400 names the field."""
    response = await (await serve(parts({"a": "1"}))).post("/v1/completions", json={"model": "auto"} | change)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert words in response.json()["error"]["message"]


# --- models -----------------------------------------------------------------------------------------------------------


async def test_models(serve: Any, sdk: Any) -> None:
    """The list holds ``auto``, the strategies and the experts; each says what it is."""
    http = await serve(parts({}, card("maths", skills=("algebra",)), card("hidden", labels=frozenset({"staff"}))))
    models = {model.id: model async for model in sdk(http).models.list()}

    assert list(models) == ["auto", "consilium/auto", "consilium/council", "consilium/panel", "maths"]
    assert models["auto"].consilium["kind"] == "strategy"
    assert models["maths"].consilium["kind"] == "expert"
    assert models["maths"].consilium["roles"] == ["candidate"]
    assert models["maths"].consilium["skills"] == ["algebra"]
    assert models["maths"].consilium["health"] == "closed"
    assert all(model.object == "model" and model.created for model in models.values())


@pytest.mark.parametrize("name", ["auto", "auto:latest", "consilium/panel", "maths"])
async def test_one_model(serve: Any, sdk: Any, name: str) -> None:
    """Each name can be looked up, those with a slash too."""
    assert (await sdk(await serve(parts({"maths": "1"}))).models.retrieve(name)).id == name


@pytest.mark.parametrize("name", ["mahts", "consilium/panle", "hidden", "hiden", "xyz"])
async def test_unknown_model_lookup(serve: Any, sdk: Any, name: str) -> None:
    """404, for experts of other access labels too."""
    http = await serve(parts({}, card("maths"), card("hidden", labels=frozenset({"staff"}))))
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk(http).models.retrieve(name)

    assert caught.value.code == "model_not_found"
    assert "hidden" not in caught.value.body["message"].partition("does not exist")[2], "neither as a hint nor in a list"


# --- embeddings -------------------------------------------------------------------------------------------------------


async def test_embeddings(serve: Any, sdk: Any) -> None:
    """The OpenAI client, which asks for base64, and a plain request get the same unit vectors."""
    http = await serve(parts({"a": "1"}))
    answer = await sdk(http).embeddings.create(model="auto", input=["one two", "three"])
    plain = (await http.post("/v1/embeddings", json={"model": "fake-encoder@1", "input": "one two"})).json()

    assert [item.index for item in answer.data] == [0, 1]
    assert answer.data[0].embedding == pytest.approx(plain["data"][0]["embedding"])
    assert sum(x * x for x in answer.data[0].embedding) == pytest.approx(1.0)
    assert answer.usage.prompt_tokens == 3


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_many_embeddings_are_as_many_requests_for_one(serve: Any, encoding: str) -> None:
    """They are written down in a thread, each for itself."""
    http = await serve(parts({"a": "1"}))
    texts = ["a " * number for number in range(1, INLINE_TEXTS + 2)]

    many = (await http.post("/v1/embeddings", json={"model": "auto", "input": texts, "encoding_format": encoding})).json()
    alone = (await http.post("/v1/embeddings", json={"model": "auto", "input": texts[-1], "encoding_format": encoding})).json()

    assert [row["index"] for row in many["data"]] == list(range(len(texts)))
    assert many["data"][-1]["embedding"] == alone["data"][0]["embedding"]
    assert (list(many), many["model"]) == (list(alone), alone["model"])
    assert many["usage"]["total_tokens"] == sum(range(1, INLINE_TEXTS + 2))


async def test_embeddings_base64(serve: Any) -> None:
    """base64 is little-endian float32."""
    http = await serve(parts({"a": "1"}))
    body = {"model": "auto", "input": "one", "encoding_format": "base64"}
    data = (await http.post("/v1/embeddings", json=body)).json()["data"]

    assert len(struct.unpack("<3f", base64.b64decode(data[0]["embedding"]))) == 3


@pytest.mark.parametrize(
    ("change", "status", "param", "words"),
    [
        ({"input": [1, 2]}, 400, "input", "token ids"),
        ({"input": [[1], [2]]}, 400, "input", "token ids"),
        ({"input": []}, 400, "input", "empty list"),
        ({"input": ["a", ""]}, 400, "input[1]", "empty"),
        ({"input": ["a", None]}, 400, "input[1]", "a string"),
        ({"input": {}}, 400, "input", "a string or a list, not an object"),
        ({"input": ["a"] * 2049}, 400, "input", "CONSILIUM_MAX_EMBEDDING_INPUTS"),
        ({"encoding_format": "int8"}, 400, "encoding_format", "float, base64"),
        ({"dimensions": 2}, 400, "dimensions", "cannot be cut"),
        ({"model": "ada"}, 404, "model", "known are"),
    ],
)
async def test_bad_embeddings(serve: Any, change: dict[str, Any], status: int, param: str, words: str) -> None:
    """What is wrong is named."""
    response = await (await serve(parts({"a": "1"}))).post("/v1/embeddings", json={"model": "auto", "input": "x"} | change)

    assert response.status_code == status
    assert response.json()["error"]["param"] == param
    assert words in response.json()["error"]["message"]


# --- route ------------------------------------------------------------------------------------------------------------


async def test_route_runs_no_expert(serve: Any) -> None:
    """The decision with scores and reasons; nobody is called."""
    made = parts({"a": "1", "b": "2"})
    response = await (await serve(made)).post("/v1/route", json={"model": "auto", "messages": USER, "consilium": {"k": 1}})

    told = response.json()
    assert told["selected"] == ["a"]
    assert told["router"] == "fixed"
    assert told["strategy"] == response.headers["x-consilium-strategy"] == "auto"
    assert [(e["expert"], e["selected"], e["why"]) for e in told["considered"]] == [("a", True, "in order"), ("b", False, "in order")]
    assert told["timings_ms"]["route"] >= 0
    assert response.headers["x-consilium-experts"] == "a"
    assert made.workers.calls == []


# --- health and metrics -----------------------------------------------------------------------------------------------


async def test_health_before_anything_is_ready(serve: Any) -> None:
    """``/health`` answers while ``/ready`` says what is missing."""
    made = parts({"a": "1"})
    made.readiness.expect("index", "encoder")
    made.readiness.set("index", "waiting for the encoder")
    http = await serve(made)
    ready = await http.get("/ready")

    assert (await http.get("/health")).json() == {"status": "ok"}
    assert ready.status_code == 503
    assert ready.json()["missing"]["index"] == "waiting for the encoder"


async def test_ready(serve: Any) -> None:
    """200 with the state of each part."""
    made = parts({"a": "1"})
    made.readiness.expect("index")
    made.readiness.done("index")
    response = await (await serve(made)).get("/ready")

    assert response.status_code == 200
    assert response.json() == {"status": "ready", "parts": {"index": "ready"}, "missing": {}, "num_experts": 1}


async def test_lost_database_is_degraded(serve: Any) -> None:
    """A database that is lost later is told, but does not take the service out: requests need no database."""
    made = parts({"a": "1"})
    http = await serve(made)
    made.database.error = StorageError("postgresql://me@db.internal/x: the database is locked", public="the database is locked")
    response = await http.get("/ready")

    assert response.status_code == 200
    assert response.json()["status"] == "degraded"
    assert response.json()["parts"]["database"] == "the database is locked", "whoever asks may be anybody"
    assert (await http.post("/v1/chat/completions", json={"model": "auto", "messages": USER})).status_code == 200


async def test_metrics(serve: Any) -> None:
    """Requests, experts' calls, tokens, health and routing time are counted, under bounded labels."""
    made = parts({"a": Says("1"), "b": Fails(ExpertUnreachable("x"))})
    made.directory.health["b"] = HealthState.CLOSED
    http = await serve(made)
    await http.post("/v1/chat/completions", json={"messages": USER, "model": "consilium/panel"})
    await http.post("/v1/chat/completions", json={"messages": USER, "model": "made-up-by-the-caller"})
    await http.post("/v1/chat/completions", json={"model": "auto", "messages": USER, "stream": True})
    await http.get("/wp-login.php")
    text = (await http.get("/metrics")).text

    assert 'consilium_expert_calls_total{expert="a",role="candidate",status="ok"} 2.0' in text
    assert 'consilium_expert_calls_total{expert="b",role="candidate",status="error"} 1.0' in text
    assert (
        'gen_ai_server_request_duration_seconds_count{error_type="",gen_ai_operation_name="chat",gen_ai_request_model="auto"} 1.0' in text
    )
    of_a = 'gen_ai_operation_name="chat",gen_ai_response_model="a"'
    assert f'gen_ai_client_token_usage_sum{{{of_a},gen_ai_token_type="output",role="candidate"}} 10.0' in text
    assert f'gen_ai_client_operation_duration_seconds_count{{error_type="",{of_a},role="candidate"}} 2.0' in text
    assert (
        'gen_ai_client_operation_duration_seconds_count{error_type="expert_unreachable",gen_ai_operation_name="chat",'
        'gen_ai_response_model="b",role="candidate"} 1.0'
    ) in text
    assert f'gen_ai_client_operation_time_to_first_chunk_seconds_count{{{of_a},role="candidate"}} 1.0' in text
    assert 'consilium_selections_total{expert="a",router="fixed"} 2.0' in text
    assert 'consilium_selections_total{expert="b",router="fixed"} 1.0' in text
    assert 'consilium_aggregations_total{aggregator="single",outcome="ok"} 2.0' in text
    assert 'gen_ai_server_time_to_first_token_seconds_count{gen_ai_operation_name="chat",gen_ai_request_model="auto"} 1.0' in text
    assert 'first_token_seconds_count{gen_ai_operation_name="chat",gen_ai_request_model="consilium/panel"}' not in text
    assert 'consilium_route_seconds_count{router="fixed"} 2.0' in text
    assert "consilium_in_flight 1.0" in text
    assert 'consilium_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'route="/v1/chat/completions",status="404"' in text
    assert "made-up-by-the-caller" not in text
    assert "wp-login" not in text
    assert "_created{" not in text


async def test_openapi(serve: Any) -> None:
    """The published schema describes the data plane's bodies, options included."""
    http = await serve(parts({"a": "1"}))
    schema = (await http.get("/openapi.json")).json()

    assert (await http.get("/docs")).status_code == 200
    body = schema["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ChatBody"}
    assert "aggregator" in schema["components"]["schemas"]["Options"]["properties"]
    for reference in _references(schema):
        assert reference.removeprefix("#/components/schemas/") in schema["components"]["schemas"]


async def test_every_endpoint_is_documented(serve: Any) -> None:
    """docs/http-api.md names each path of the data plane and each resource of the admin plane."""
    page = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text(encoding="utf-8")
    paths = (await (await serve(parts({"a": "1"}))).get("/openapi.json")).json()["paths"]
    admin = {path.split("/")[3] for path in paths if path.startswith("/admin/api/")}

    assert [path for path in paths if not path.startswith("/admin/") and re.sub(r"{\w+}", "{id}", path) not in page] == []
    assert [resource for resource in sorted(admin) if f"`{resource}`" not in page] == []


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [r for value in node.values() for r in _references(value)]
    return [r for value in node for r in _references(value)] if isinstance(node, list) else []
