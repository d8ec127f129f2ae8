"""Bad input over HTTP: a clear error in OpenAI's shape, and the service is still up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from domain.errors import ExpertRejected, ExpertUnreachable
from tests.fakes.services import parts
from tests.fakes.workers import Fails

USER = [{"role": "user", "content": "hi"}]
PATH = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
IMAGE_OF_A_STRING = {"type": "image_url", "image_url": "x"}


def error_of(response: Any) -> dict[str, Any]:
    """The error object, after checking its shape."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    body = response.json()
    assert set(body) == {"error"}
    assert {"message", "type", "param", "code"} <= set(body["error"])
    error: dict[str, Any] = body["error"]
    return error


@pytest.fixture
async def http(serve: Any) -> AsyncIterator[Any]:
    client = await serve(parts({"maths": "42", "poetry": "roses"}))
    yield client
    assert (await client.post(PATH, json={"model": "auto", "messages": USER})).status_code == 200, "the service has to survive"


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": None}, "messages", "a list, not null"),
        ({"messages": "hi"}, "messages", "a list, not a string ('hi')"),
        ({"messages": ["hi"]}, "messages[0]", "an object"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "not null"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "is missing"),
        ({"messages": [{"role": "usr", "content": "hi"}]}, "messages[0].role", "did you mean 'user'?"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "a string or a list, not a number (7)"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", "needs it"),
        ({"messages": [*USER, {"role": "user", "content": [{"text": "x"}]}]}, "messages[1].content[0].type", "is missing"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages[0].content[0].image_url",
            "object",
        ),
        ({"messages": [{"role": "tool", "content": "7"}]}, "messages[0].tool_call_id", "needs the id"),
        ({"model": 7}, "model", "a string, not a number (7)"),
        ({"model": ""}, "model", "at least 1"),
        ({"temperature": "hot"}, "temperature", "a number, not a string ('hot')"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"top_p": True}, "top_p", "a number, not true or false"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 1.5}, "n", "a whole number"),
        ({"max_tokens": "10"}, "max_tokens", "a whole number, not a string"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_completion_tokens": -1}, "max_completion_tokens", "greater than or equal to 1"),
        ({"stop": 7}, "stop", "a string or a list, not a number (7)"),
        ({"stop": ["a", 7]}, "stop[1]", "a string, not a number (7)"),
        ({"stream": "yes"}, "stream", "true or false, not a string"),
        ({"stream_options": True}, "stream_options", "an object"),
        ({"tools": {}}, "tools", "a list, not an object"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "needs it"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "is missing"),
        ({"tool_choice": 1}, "tool_choice", "a string or an object"),
        ({"response_format": "json"}, "response_format", "an object, not a string"),
        ({"response_format": {}}, "response_format.type", "is missing"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "needs it"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}}, "response_format.json_schema.schema", "an object"),
        ({"logprobs": 3}, "logprobs", "true or false"),
        ({"top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"seed": "x"}, "seed", "a whole number"),
        ({"logit_bias": {"1": "x"}}, "logit_bias.1", "a number"),
        ({"consilium": []}, "consilium", "an object, not a list"),
        ({"consilium": {"agregator": "vote"}}, "consilium.agregator", "did you mean 'aggregator'?"),
        ({"consilium": {"aggregator": "voting"}}, "consilium.aggregator", "did you mean 'vote'?"),
        ({"consilium": {"pick": "top"}}, "consilium.pick", "did you mean 'top_k'?"),
        ({"consilium": {"k": 0}}, "consilium.k", "greater than or equal to 1"),
        ({"consilium": {"k": "3"}}, "consilium.k", "a whole number, not a string"),
        ({"consilium": {"k": 99}}, "consilium.k", "between 1 and"),
        ({"consilium": {"effort": "hihg"}}, "consilium.effort", "did you mean 'high'?"),
        ({"consilium": {"timeout_s": 0}}, "consilium.timeout_s", "greater than 0"),
        ({"consilium": {"allow": "maths"}}, "consilium.allow", "a list"),
        ({"consilium": {"boosts": {}}}, "consilium.boosts", "did you mean 'boost'?"),
        ({"consilium": {"boost": ["maths"]}}, "consilium.boost", "an object, not a list"),
        ({"consilium": {"boost": {"maths": 1.5}}}, "consilium.boost.maths", "less than or equal to 1"),
        ({"consilium": {"boost": {"maths": "much"}}}, "consilium.boost.maths", "a number, not a string"),
        ({"consilium": {"boost": {"nosuch": 0.5}}}, "consilium.boost", "there is no expert 'nosuch'"),
        ({"consilium": {"price_weight": -0.1}}, "consilium.price_weight", "greater than or equal to 0"),
        ({"consilium": {"load_weight": 2}}, "consilium.load_weight", "less than or equal to 1"),
        ({"consilium": {"session_weight": "x"}}, "consilium.session_weight", "a number, not a string"),
        ({"consilium": {"router_options": []}}, "consilium.router_options", "an object, not a list"),
        ({"consilium": {"router_options": {str(n): 0 for n in range(65)}}}, "consilium.router_options", "65 items, at most 64"),
    ],
)
async def test_wrong_field(http: Any, change: dict[str, Any], param: str, words: str) -> None:
    """400 names the field as a path and says what it must be, or the nearest valid value."""
    response = await http.post(PATH, json={"model": "auto", "messages": USER} | change)

    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert words in error["message"]
    assert error["message"].startswith(param.split("[", maxsplit=1)[0].split(".", maxsplit=1)[0])
    assert error["type"] == "invalid_request_error"


async def test_unknown_router(http: Any) -> None:
    """400 says which routers there are, and which was probably meant."""
    response = await http.post(PATH, json={"model": "auto", "messages": USER, "consilium": {"router": "explict"}})

    assert response.status_code == 400
    assert error_of(response)["param"] == "consilium.router"
    assert "unknown router 'explict'; did you mean 'explicit'? Known are explicit, fixed" in error_of(response)["message"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"{", "line 1, column 2"),
        (b'{"model": "auto",\n "messages": [}', "line 2"),
        (b'{"model": "\xff\xfe"}', "byte 0xff at position 11"),
        (b"[1, 2]", "JSON object"),
        (b'"hi"', "JSON object"),
        (b"null", "JSON object"),
        (b'{"model": NaN}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
@pytest.mark.parametrize("path", [PATH, "/v1/completions", "/v1/embeddings", "/v1/route"])
async def test_broken_body(http: Any, path: str, raw: bytes, words: str) -> None:
    """A body that is no JSON object is a 400 that says where it breaks."""
    response = await http.post(path, content=raw, headers=JSON)

    assert response.status_code == 400
    assert words in error_of(response)["message"]


def nested(num_levels: int) -> Any:
    value: Any = 1
    for _ in range(num_levels):
        value = [value]
    return value


@pytest.mark.parametrize("path", [PATH, "/v1/route"])
async def test_deep_nesting(http: Any, path: str) -> None:
    """Fields that are nested deeper than can be written again are a 400 that names them; before that they are passed on."""
    for num_levels in (128, 300, 900):
        response = await http.post(path, json={"model": "auto", "messages": USER, "guided": nested(num_levels)})
        assert response.status_code == 400
        assert error_of(response)["param"] == "guided"
        assert "at most 128 levels" in error_of(response)["message"]

    assert (await http.post(path, json={"model": "auto", "messages": USER, "guided": nested(127)})).status_code == 200


async def test_unknown_model(http: Any, sdk: Any) -> None:
    """404 with OpenAI's code lists the nearest names."""
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk(http).chat.completions.create(model="poetri", messages=USER)

    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "'poetry'" in caught.value.message


async def test_large_body_by_its_declared_length(http: Any) -> None:
    """413 before a byte is read, with the limit and its setting."""
    response = await http.post(PATH, content=b"x" * 10_485_760, headers=JSON)

    assert response.status_code == 413
    assert "CONSILIUM_MAX_BODY_BYTES" in error_of(response)["message"]


async def test_large_body_without_a_length(serve: Any) -> None:
    """413 as soon as the limit is passed: the rest is never read."""
    http = await serve(parts({"a": "1"}), max_body_bytes=2048)
    num_read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal num_read
        while True:
            num_read += 1
            yield b"x" * 1024

    response = await http.post(PATH, content=endless(), headers=JSON)

    assert response.status_code == 413
    assert error_of(response)["code"] == "payload_too_large"
    assert num_read < 10


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_content_type(http: Any, kind: str) -> None:
    """A body that does not say it is JSON is refused: pages of other origins can send those without asking."""
    response = await http.post(PATH, content=b'{"messages": []}', headers={"content-type": kind})

    assert response.status_code == 415
    assert "application/json" in error_of(response)["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/v1/nothing", 404, "not_found"), ("GET", PATH, 405, "method_not_allowed"), ("DELETE", "/health", 405, "method_not_allowed")],
)
async def test_unknown_paths(http: Any, method: str, path: str, status: int, code: str) -> None:
    """404 and 405 are in OpenAI's shape too."""
    response = await http.request(method, path)

    assert response.status_code == status
    assert error_of(response)["code"] == code
    assert path in error_of(response)["message"]


@pytest.mark.parametrize(("method", "path"), [("POST", PATH), ("GET", "/v1/models"), ("POST", "/v1/route")])
async def test_unexpected_exception(http: Any, serve: Any, caplog: pytest.LogCaptureFixture, method: str, path: str) -> None:
    """A bug is a 500 in OpenAI's shape that gives nothing away; the log has the trace and the request's id. Whoever serves the endpoint."""
    made = parts({"a": "1"})

    def broken() -> Any:
        raise ZeroDivisionError("secret detail")

    made.directory.snapshot = broken  # type: ignore[method-assign]
    client = await serve(made)
    body = {"model": "auto", "messages": USER} if method == "POST" else None
    response = await client.request(method, path, json=body, headers={"x-request-id": "r-500"})

    assert response.status_code == 500
    assert error_of(response)["code"] == "internal_error"
    assert "secret" not in response.text
    assert "r-500" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("given", ["two words", "x" * 200, "naïve", ""])
async def test_insane_request_id(http: Any, given: str) -> None:
    """A request id that could break a log line or a header is replaced."""
    response = await http.post(PATH, json={"model": "auto", "messages": USER}, headers={"x-request-id": given.encode("latin-1")})

    assert response.status_code == 200
    assert len(response.headers["x-request-id"]) == 32


async def test_foreign_host_name(http: Any) -> None:
    """A loopback service does not answer under another name, which is how DNS rebinding would come in."""
    response = await http.post(PATH, json={"model": "auto", "messages": USER}, headers={"host": "evil.example:8080"})

    assert response.status_code == 403
    assert "CONSILIUM_ALLOWED_HOSTS" in error_of(response)["message"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:8080", "[::1]", "LOCALHOST:1", "mine.example", "app.localhost:3"])
async def test_known_host_names(serve: Any, host: str) -> None:
    """Loopback names and those of the setting are served."""
    client = await serve(parts({"a": "1"}), allowed_hosts="mine.example")
    response = await client.get("/health", headers={"host": host})

    assert response.status_code == 200


async def test_too_many_requests(serve: Any) -> None:
    """One request more than the limit is told to come back."""
    import asyncio

    from tests.fakes.workers import Says, Stalls

    made = parts({"a": Stalls(Says("1"))})
    client = await serve(made, max_requests=1)
    first = asyncio.create_task(client.post(PATH, json={"model": "auto", "messages": USER}))
    await made.workers.until_started("a")
    second = await client.post(PATH, json={"model": "auto", "messages": USER})
    made.workers.release("a")

    assert second.status_code == 429
    assert second.headers["retry-after"] == "1"
    assert (await first).status_code == 200
    assert (await client.post(PATH, json={"model": "auto", "messages": USER})).status_code == 200


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"messages": USER * 4097}, "messages", "has 4097 items, at most 4096"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 8193}]}, "messages", "8193 content parts"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 3000}] * 3}, "messages", "9000 content parts"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}] * 1025}, "tools", "has 1025 items, at most 1024"),
        ({"stop": ["x"] * 129}, "stop", "has 129 items, at most 128"),
        ({"logit_bias": {str(token): 1 for token in range(16_385)}}, "logit_bias", "has 16385 tokens, at most 16384"),
        ({"consilium": {"allow": ["maths"] * 1025}}, "consilium.allow", "has 1025 items, at most 1024"),
        ({"consilium": {"deny": ["poetry"] * 1025}}, "consilium.deny", "has 1025 items, at most 1024"),
        ({"seed": 2**70}, "seed", "a whole number from -9223372036854775808 to 18446744073709551615, not 1.18"),
        ({"consilium": {"seed": 2**70}}, "consilium.seed", "a whole number from -9223372036854775808"),
        ({"seed": 1.5}, "seed", "a whole number, not a number (1.5)"),
    ],
)
async def test_too_many(http: Any, change: dict[str, Any], param: str, words: str) -> None:
    """400 says how many there are and how many are taken."""
    response = await http.post(PATH, json={"model": "auto", "messages": USER} | change)

    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert words in error_of(response)["message"]


LARGE = "x" * 1_000_000


@pytest.mark.parametrize(
    "change",
    [
        {"consilium": {"router": LARGE}},
        {"consilium": {LARGE: 1}},
        {"consilium": {"allow": [LARGE]}},
        {"consilium": {"deny": [LARGE]}},
        {"consilium": {"aggregator": LARGE}},
        {"consilium": {"aggregator": "fuse", "aggregator_expert": LARGE}},
        {"consilium": {"pick": LARGE}},
        {"consilium": {"k": LARGE}},
        {"model": LARGE},
        {"messages": [{"role": LARGE, "content": "hi"}]},
        {"logit_bias": {LARGE: "x"}},
        {"stop": {LARGE: LARGE}},
        {"temperature": LARGE},
    ],
)
async def test_large_values_are_not_repeated(serve: Any, change: dict[str, Any]) -> None:
    """Whatever the size of what is wrong, the answer stays short, and so does the trace of it."""
    made = parts({"maths": "42"})
    http = await serve(made)
    response = await http.post(PATH, json={"model": "auto", "messages": USER} | change)

    assert response.status_code == 400
    assert len(error_of(response)["message"]) <= 1000
    assert len(error_of(response)["param"]) <= 100
    assert all(len(trace.error_message or "") <= 1000 for trace in made.traces.traces)


async def test_large_values_that_an_expert_repeats(serve: Any) -> None:
    """What an expert says of a request is cut too, in the answer and in the trace."""
    made = parts({"maths": Fails(ExpertRejected(f"no {LARGE}", param=LARGE)), "poetry": Fails(ExpertUnreachable(LARGE))})
    http = await serve(made)
    refused = await http.post(PATH, json={"model": "maths", "messages": USER})
    failed = await http.post(PATH, json={"model": "poetry", "messages": USER})

    assert (refused.status_code, failed.status_code) == (400, 502)
    assert len(refused.content) < 3000
    assert len(failed.content) < 3000
    for trace in made.traces.traces:
        assert len(trace.error_message or "") <= 1000
        assert len(trace.calls[0].error or "") <= 1000
