"""A line of a batch is answered as the same request alone is, and its file says so in OpenAI's shape."""

from __future__ import annotations

import json
from typing import Any

import httpx
import orjson
import pytest

from api.batch_output import output_line
from api.batch_shapes import ChatLines, CompletionLines, batch_shapes
from api.embedding_answers import EmbeddingAnswers
from api.metrics import Metrics
from api.services import Services
from domain.batch import BATCH_ENDPOINTS, BatchErrorCode, LineResult
from domain.errors import InvalidRequest, ModelNotFound, RequestError
from orchestrator.batch.ports import ChatShape
from tests.fakes.services import Parts, parts
from tests.fakes.workers import Says

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "What is 6 times 7?"}], "temperature": 0}
PLAIN = {"model": "maths", "prompt": "6 times 7", "echo": True}
EMBED = {"model": "auto", "input": ["one two", "three"]}


async def line_body(made: Parts, settings: Any, url: str, body: dict[str, Any]) -> dict[str, Any]:
    """As the engine does it, through JSON as the database keeps it."""
    async with made.bootstrap()(settings, Metrics()) as services:
        shape = batch_shapes(services)[url]
        if isinstance(shape, EmbeddingAnswers):
            shape.check(body)
            answer: Any = await shape.answer(body, "r-1")
        else:
            answer = await run(services, shape, body)
        found: dict[str, Any] = json.loads(json.dumps(answer))
        return found


async def run(services: Services, shape: Any, body: dict[str, Any]) -> Any:
    chat: ChatShape = shape
    request = chat.request(body, "r-1")
    return chat.answer(request, body, await services.orchestrator.run(request))


async def alone(http: httpx.AsyncClient, url: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await http.post(url, json=body, headers={"x-request-id": "r-1"})
    found: dict[str, Any] = response.raise_for_status().json()
    return found


def test_every_endpoint_has_its_shape() -> None:
    services: Any = type(
        "S", (), {"encoder": None, "metrics": None, "spans": None, "settings": type("T", (), {"encoder": "", "max_embedding_inputs": 1})}
    )

    assert tuple(batch_shapes(services)) == BATCH_ENDPOINTS


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", CHAT | {"model": "consilium/panel"}),
        ("/v1/completions", PLAIN),
        ("/v1/completions", PLAIN | {"echo": False}),
        ("/v1/embeddings", EMBED),
        ("/v1/embeddings", EMBED | {"encoding_format": "base64"}),
    ],
)
async def test_the_body_is_the_one_that_the_request_alone_gets(serve: Any, settings: Any, url: str, body: dict[str, Any]) -> None:
    made = parts({"maths": Says("42", reasoning="six sevens"), "other": "41"})
    online = await alone(await serve(made), url, body)
    in_batch = await line_body(made, settings, url, body)

    assert online.pop("created", None) == pytest.approx(in_batch.pop("created", None), abs=60)
    assert in_batch == online


async def test_an_explained_line_says_the_same_keys(serve: Any, settings: Any) -> None:
    made, body = parts({"maths": "42"}), CHAT | {"consilium": {"explain": True}}
    online = (await alone(await serve(made), "/v1/chat/completions", body))["consilium"]
    in_batch = (await line_body(made, settings, "/v1/chat/completions", body))["consilium"]

    assert in_batch.keys() == online.keys()
    assert in_batch["considered"] == online["considered"]


@pytest.mark.parametrize(("shape", "body"), [(ChatLines(), CHAT), (CompletionLines(), PLAIN)])
def test_a_line_that_wants_a_stream_is_refused(shape: ChatShape, body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="a batch answers whole") as caught:
        shape.request(body | {"stream": True}, "r-1")

    assert caught.value.param == "stream"
    assert not shape.request(body | {"stream": False}, "r-1").stream


@pytest.mark.parametrize(
    ("shape", "body", "param"),
    [
        (ChatLines(), CHAT | {"consilium": {"kk": 1}}, "consilium.kk"),
        (ChatLines(), {"model": "auto"}, "messages"),
        (CompletionLines(), PLAIN | {"prompt": [1, 2]}, "prompt"),
    ],
)
def test_a_bad_line_names_its_field(shape: ChatShape, body: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        shape.request(body, "r-1")

    assert caught.value.param == param


async def test_a_bad_embeddings_line_is_found_without_encoding(settings: Any) -> None:
    async with parts({}).bootstrap()(settings, Metrics()) as services:
        shape = EmbeddingAnswers.of(services)
        for body, kind in ((EMBED | {"model": "ada"}, ModelNotFound), (EMBED | {"input": []}, InvalidRequest)):
            with pytest.raises(kind):
                shape.check(body)


# --- lines of the output and error files ------------------------------------------------------------------------------


def test_an_answered_line() -> None:
    line = output_line("id-1", LineResult(1, "r-1", 200, {"object": "chat.completion"}))

    assert line.endswith(b"\n")
    assert orjson.loads(line) == {
        "id": "batch_req_r-1",
        "custom_id": "id-1",
        "response": {"status_code": 200, "request_id": "r-1", "body": {"object": "chat.completion"}},
        "error": None,
    }


def test_a_failed_line_has_the_error_that_the_request_alone_gets() -> None:
    error = {"code": "all_experts_failed", "message": "every expert failed", "experts": [{"expert": "a", "code": "x", "message": "y"}]}
    line = orjson.loads(output_line("id-1", LineResult(1, "batch_req_7", 502, error=error)))

    assert line["id"] == "batch_req_7"
    assert line["error"] is None
    assert line["response"]["status_code"] == 502
    assert line["response"]["body"] == {"error": {"type": "server_error", "param": None, **error}}


def test_a_line_that_was_not_run_says_why() -> None:
    result = LineResult(1, "r-1", 0, error={"code": BatchErrorCode.EXPIRED, "message": "the window passed", "line": 3})
    line = orjson.loads(output_line("id-1", result))

    assert line["response"] is None
    assert line["error"] == {"code": "batch_expired", "message": "the window passed"}


@pytest.mark.parametrize("odd", ["half \ud83d", 2**70, "\u2028\0", {"deep": [float("1e300")]}])
def test_a_line_is_one_line_of_json_whatever_it_holds(odd: Any) -> None:
    line = output_line('"\n🏛', LineResult(1, "r", 200, {"odd": odd}))

    assert line.count(b"\n") == 1
    assert json.loads(line)["response"]["body"]["odd"] == odd
    assert json.loads(line)["custom_id"] == '"\n🏛'
