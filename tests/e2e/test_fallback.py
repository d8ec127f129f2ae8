"""Questions like none that any expert was measured on, over HTTP, of the zoo as it comes: ``auto`` has the generalist answer and says so,
strategies without a fallback expert refuse and say what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.e2e.processes import ADMIN_KEY, command_line, consilium, until

pytestmark = pytest.mark.timeout(300)

POEM = [{"role": "user", "content": "Write a poem about autumn leaves."}]
ROMAN = [{"role": "user", "content": "Write MCMXCIV in Arabic numerals."}]
EXPLAIN = {"consilium": {"explain": True}}
TOOL = {
    "type": "function",
    "function": {"name": "report", "parameters": {"type": "object", "properties": {"answer": {"type": "string", "maxLength": 12}}}},
}


@pytest.fixture
def http(zoo: str) -> Iterator[httpx.Client]:
    """As the operator."""
    with httpx.Client(base_url=zoo, headers={"authorization": f"Bearer {ADMIN_KEY}"}, trust_env=False, timeout=60) as http:
        yield http


def ask(http: httpx.Client, **body: Any) -> httpx.Response:
    return http.post("/v1/chat/completions", json={"model": "auto", "messages": POEM, **body})


def refusal(answer: httpx.Response) -> str:
    """What a 503 for want of an expert says."""
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] == "no_eligible_expert"
    return str(answer.json()["error"]["message"])


def fallbacks(http: httpx.Client) -> float:
    """How often a fallback expert was taken so far."""
    lines = http.get("/metrics").raise_for_status().text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith("consilium_fallbacks_total"))


@contextmanager
def changed(http: httpx.Client, path: str, **fields: Any) -> Iterator[None]:
    """With *fields* of a resource as they are given here."""
    before = http.get(f"/admin/api/{path}").raise_for_status().json()
    http.patch(f"/admin/api/{path}", json=fields).raise_for_status()
    try:
        yield
    finally:
        http.patch(f"/admin/api/{path}", json={name: before[name] for name in fields}).raise_for_status()


@pytest.mark.parametrize("text", ["Hello", "Write a poem about autumn leaves.", "Wie wird das Wetter morgen?"])
def test_auto_has_the_generalist_answer_and_says_that_it_is_a_fallback_and_why(http: httpx.Client, text: str) -> None:
    answer = ask(http, messages=[{"role": "user", "content": text}], **EXPLAIN)

    assert answer.status_code == 200, answer.text
    told = answer.json()["consilium"]
    assert (told["fallback"], told["selected"], told["answered_by"], told["skills"]) == (True, ["generalist"], "generalist", [])
    assert told["reason"].startswith("generalist is the strategy's fallback: the query is like no known skill (best similarity ")
    assert answer.headers["x-consilium-experts"] == "generalist"
    assert answer.headers["x-consilium-fallback"].startswith(told["reason"][:100])
    assert "x-consilium-skills" not in answer.headers


def test_what_is_known_goes_to_who_was_measured_and_no_header_speaks_of_a_fallback(http: httpx.Client) -> None:
    answer = ask(http, messages=ROMAN, **EXPLAIN)

    assert (answer.json()["consilium"]["fallback"], answer.headers["x-consilium-experts"]) == (False, "numerals")
    assert "x-consilium-fallback" not in answer.headers


def test_a_stream_says_it_before_its_first_token(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(model="auto", messages=POEM, stream=True, extra_body=EXPLAIN) as opened:
        headers = opened.headers
        events = [json.loads(line[6:]) for line in opened.iter_lines() if line.startswith("data: {")]

    assert headers["x-consilium-fallback"].startswith("generalist is the strategy's fallback: ")
    assert headers["x-consilium-experts"] == "generalist"
    told = next(event["consilium"] for event in events if "consilium" in event)
    assert (told["fallback"], told["answered_by"]) == (True, "generalist")


@pytest.mark.parametrize("strategy", ["single", "panel", "symbolic-moe", "btm"])
def test_strategies_without_a_fallback_refuse_with_the_skills_there_are_and_what_to_do(http: httpx.Client, strategy: str) -> None:
    answer = ask(http, model=f"consilium/{strategy}")

    said = refusal(answer)
    assert said.startswith("the query is like no known skill (best similarity ")
    for told in ("roman numerals", "Ask a model by name", "consilium experts add", "give the strategy a fallback expert"):
        assert told in said
    assert answer.headers["x-should-retry"] == "false", "it would be refused again"


def test_auto_without_a_fallback_refuses(http: httpx.Client) -> None:
    with changed(http, "strategies/auto", fallback_expert=None):
        assert "is like no known skill" in refusal(ask(http))
    assert ask(http).status_code == 200


def test_the_decision_alone_tells_it_too(http: httpx.Client) -> None:
    answer = http.post("/v1/route", json={"model": "auto", "messages": POEM})

    assert (answer.json()["fallback"], answer.json()["selected"]) == (True, ["generalist"])
    assert answer.headers["x-consilium-fallback"].startswith("generalist is the strategy's fallback: ")


def test_tools_and_json_are_the_generalists_as_well(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=POEM, tools=[TOOL], tool_choice="required")  # type: ignore[list-item]
    as_json = client.chat.completions.create(model="auto", messages=POEM, response_format={"type": "json_object"}, max_tokens=200)

    assert raw.headers["x-consilium-experts"] == "generalist"
    call = raw.parse().choices[0].message.tool_calls[0]  # type: ignore[index]
    assert call.function.name == "report"  # type: ignore[union-attr]
    assert isinstance(json.loads(call.function.arguments), dict)  # type: ignore[union-attr]
    if as_json.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(as_json.choices[0].message.content or ""), dict)


def test_an_image_that_nobody_sees_is_refused_with_what_each_lacks(http: httpx.Client) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    for content in ([image], [{"type": "text", "text": "What is on this picture?"}, image]):
        answer = ask(http, messages=[{"role": "user", "content": content}])
        assert "generalist: lacks vision" in refusal(answer)


def test_a_batch_has_such_lines_answered_and_refuses_them_where_a_single_request_would_be(client: OpenAI) -> None:
    def line(name: str, model: str) -> str:
        return json.dumps({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": {"model": model, "messages": POEM}})

    content = "\n".join([line("auto", "auto"), line("single", "consilium/single")])
    file = client.files.create(file=("in.jsonl", content.encode()), purpose="batch")
    begun = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

    def over() -> openai.types.Batch | None:
        found = client.batches.retrieve(begun.id)
        return found if found.status in {"completed", "failed"} else None

    ended = until(over, within_s=120)

    assert ended.status == "completed"
    answered = [json.loads(text) for text in client.files.content(ended.output_file_id or "").text.splitlines()]
    refused = [json.loads(text) for text in client.files.content(ended.error_file_id or "").text.splitlines()]
    assert [(row["custom_id"], row["response"]["status_code"]) for row in answered] == [("auto", 200)]
    assert [row["custom_id"] for row in refused] == ["single"]
    assert "is like no known skill" in json.dumps(refused)


def test_a_fallback_that_is_disabled_is_a_refusal_that_says_so(http: httpx.Client) -> None:
    with changed(http, "experts/generalist", enabled=False):
        answer = ask(http)

    said = refusal(answer)
    assert said.startswith("the fallback expert 'generalist' is not eligible now (disabled), and the query is like no known skill")
    assert "give the strategy another fallback expert" in said
    assert answer.json()["error"]["experts"] == [{"expert": "generalist", "message": "disabled"}]


def test_a_caller_who_leaves_the_fallback_out_hears_that(http: httpx.Client) -> None:
    assert "'generalist' is not eligible now (in consilium.deny)" in refusal(ask(http, consilium={"deny": ["generalist"]}))
    assert "'generalist' is not eligible now (not in consilium.allow)" in refusal(ask(http, consilium={"allow": ["facts"]}))


def test_a_key_that_may_not_use_the_fallback_is_refused_and_not_told_of_it(tmp_path: Path) -> None:
    """What a key may not use does not exist for it: there is no fallback, and the refusal says what there is. (A service of its own: once
    there is a key, everybody needs one.)"""
    with consilium(tmp_path) as url, httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        allowed = {"id": "specialists", "experts": ["numerals", "facts"]}
        made = http.post("/admin/api/keys", json=allowed, headers={"authorization": f"Bearer {ADMIN_KEY}"})
        assert made.status_code == 201, made.text
        http.headers["authorization"] = f"Bearer {made.json()['key']}"
        answer, known = ask(http), ask(http, messages=ROMAN)

    said = refusal(answer)
    assert "is like no known skill" in said
    assert "Ask a model by name" in said
    assert "generalist" not in answer.text
    assert known.json()["choices"][0]["message"]["content"] == "1994"


def test_an_operator_counts_them_and_finds_why_in_the_trace(http: httpx.Client) -> None:
    before = fallbacks(http)
    ask(http, messages=ROMAN)
    ask(http)
    asked = ask(http)

    assert fallbacks(http) == before + 2
    request_id = asked.headers["x-request-id"]
    (row,) = until(lambda: http.get("/admin/api/traces", params={"request_id": request_id}).json()["data"], within_s=60)
    trace = http.get(f"/admin/api/traces/{row['id']}").json()
    assert (trace["fallback"], trace["answered_by"]) == (True, "generalist")
    assert trace["reason"].startswith("generalist is the strategy's fallback: the query is like no known skill")


def test_the_command_line_tells_it(zoo: str, zoo_folder: Path) -> None:
    asked = command_line("ask", "Hello", "--explain", url=zoo, folder=zoo_folder)
    routed = command_line("route", "Hello", url=zoo, folder=zoo_folder)

    for printed in (asked, routed):
        assert "strategy auto · router skills · fallback" in printed
        assert "generalist is the strategy's fallback: the query is like no known skill" in " ".join(printed.split())


def test_one_line_takes_the_fallback_away_and_gives_it_back(zoo: str, zoo_folder: Path, http: httpx.Client) -> None:
    told = command_line("strategies", "set", "auto", "fallback_expert=null", url=zoo, folder=zoo_folder)
    try:
        assert told == "changed auto: fallback_expert\n"
        assert "is like no known skill" in refusal(ask(http))
    finally:
        command_line("strategies", "set", "consilium/auto", "fallback_expert=generalist", url=zoo, folder=zoo_folder)
    assert ask(http).headers["x-consilium-experts"] == "generalist"
