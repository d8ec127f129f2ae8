"""The load of a chaos run: clients that ask all the time, some of whom leave in the middle, and batches."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx
import orjson

from benchmarks.chaos_checks import BatchSeen, Question, Seen
from benchmarks.chaos_world import BY_NAME_DEADLINE_S, FAULTY, HEALTHY, TIMEOUT_S

EVERYBODY = frozenset({*FAULTY, *HEALTHY})
CLIENT_TIMEOUT_S = 90.0
"""Far beyond every deadline: what takes so long has hung."""
THINK_S = 0.1
"""Mean pause of a client between two questions."""
LEAVE_SHARE, STREAM_SHARE = 0.05, 0.5
BATCH_LINES = 24
BATCH_PATIENCE_S = 240.0
"""After the last fault: a round's longest pause, and a circuit's longest cool-down, twice."""
_ADMIT_PATIENCE_S = 120.0
"""How long a batch is handed in again and again while the database is away."""
_OVER = frozenset({"completed", "failed", "cancelled", "expired"})
_TEXTS = ("Solve the equation 3x + 4 = 19 for x.", "How long does an egg have to boil?", "Who was the first emperor of Rome?")


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    models: tuple[str, ...]
    may_answer: frozenset[str] | None
    """None: the model itself alone."""
    is_owed: bool
    deadline_s: float = TIMEOUT_S
    weight: int = 1


_KINDS = (
    _Kind("healthy by name", HEALTHY, None, is_owed=True, deadline_s=BY_NAME_DEADLINE_S, weight=2),
    _Kind("faulty by name", FAULTY, None, is_owed=False, deadline_s=BY_NAME_DEADLINE_S, weight=2),
    _Kind("auto", ("auto",), EVERYBODY, is_owed=True, weight=3),
    _Kind("next best", ("consilium/alphas",), frozenset({"alpha", "alpha-twin"}), is_owed=True, weight=2),
    _Kind("hedged", ("consilium/betas",), frozenset({"beta", "beta-twin"}), is_owed=True, weight=2),
    _Kind("panel", ("consilium/panel",), frozenset({"alpha", "beta", "delta"}), is_owed=True, weight=1),
)


def question_of(rng: random.Random, mark: str) -> Question:
    kind = rng.choices(_KINDS, weights=[kind.weight for kind in _KINDS])[0]
    model = rng.choice(kind.models)
    return Question(
        mark,
        kind.name,
        model,
        kind.may_answer or frozenset({model}),
        kind.is_owed,
        kind.deadline_s,
        is_streamed=rng.random() < STREAM_SHARE,
        leaves=rng.random() < LEAVE_SHARE,
    )


def body_of(question: Question, text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"{text} #{question.mark}"}]
    return {"model": question.model, "messages": messages, "stream": question.is_streamed, "consilium": {"explain": True}}


async def ask_until(end: float, base_urls: Sequence[str], *, seed: str, num_clients: int) -> list[Seen]:
    """What *num_clients* saw who ask one question after the other until *end* (``time.monotonic``)."""
    seen: list[Seen] = []

    async def one(number: int) -> None:
        rng = random.Random(f"{seed}-{number}")
        async with httpx.AsyncClient(timeout=CLIENT_TIMEOUT_S, trust_env=False) as client:
            num_asked = 0
            while time.monotonic() < end:
                num_asked += 1
                question = question_of(rng, f"{seed}-{number}-{num_asked}")
                seen.append(await ask(client, rng.choice(base_urls), question, rng.choice(_TEXTS), leave_after_s=rng.uniform(0, 0.2)))
                await asyncio.sleep(rng.expovariate(1 / THINK_S))

    await asyncio.gather(*(one(number) for number in range(num_clients)))
    return seen


async def ask(client: httpx.AsyncClient, base_url: str, question: Question, text: str, *, leave_after_s: float = 0.0) -> Seen:
    """What the client of *question* sees. It never raises: what it meets is what is judged."""
    began = time.monotonic()
    url, sent = f"{base_url}/v1/chat/completions", body_of(question, text)
    headers = {"x-request-id": question.mark}
    seen = Seen(question, 0.0)
    try:
        if question.leaves:
            async with asyncio.timeout(leave_after_s):
                await client.post(url, json=sent, headers=headers)
        elif question.is_streamed:
            seen = await _streamed(client, url, sent, headers, seen)
        else:
            response = await client.post(url, json=sent, headers=headers)
            seen = _whole(response, seen)
    except TimeoutError:
        pass  # it has left
    except (httpx.HTTPError, ValueError, KeyError) as error:
        seen = replace(seen, trouble=f"{type(error).__name__}: {error}")
    return replace(seen, took_s=time.monotonic() - began)


def _whole(response: httpx.Response, seen: Seen) -> Seen:
    body = orjson.loads(response.content)
    if response.status_code != 200:
        return replace(seen, status=response.status_code, error=body["error"])
    text = body["choices"][0]["message"]["content"]
    return replace(seen, status=200, text=text, answered_by=body["consilium"]["answered_by"], is_whole=True)


async def _streamed(client: httpx.AsyncClient, url: str, sent: Mapping[str, Any], headers: Mapping[str, str], seen: Seen) -> Seen:
    async with client.stream("POST", url, json=sent, headers=headers) as response:
        if response.status_code != 200:
            await response.aread()
            return _whole(response, seen)
        texts: list[str] = []
        error: Mapping[str, Any] | None = None
        answered_by, is_whole, is_error = None, False, False
        async for line in response.aiter_lines():
            if line.startswith("event: error"):
                is_error = True
            elif line == "data: [DONE]":
                is_whole = True
            elif line.startswith("data: "):
                event = orjson.loads(line[6:])
                if is_error:
                    error = event["error"]
                    break
                texts += [choice["delta"].get("content") or "" for choice in event["choices"]]
                answered_by = event.get("consilium", {}).get("answered_by", answered_by)
    return replace(seen, status=200, text="".join(texts), answered_by=answered_by, is_whole=is_whole, error=error)


async def run_batch(base_urls: Sequence[str], *, seed: str, until: float) -> BatchSeen | None:
    """Hand a batch in and wait for its end, for at most ``BATCH_PATIENCE_S`` after *until* (``time.monotonic``), when the faults are over.
    None when it was never taken: nothing was promised then."""
    rng = random.Random(seed)
    lines: dict[str, frozenset[str]] = {}
    requests = []
    for number in range(BATCH_LINES):
        question = replace(question_of(rng, f"{seed}-{number}"), is_streamed=False)
        lines[question.mark] = question.may_answer
        body = {key: value for key, value in body_of(question, rng.choice(_TEXTS)).items() if key not in ("stream", "consilium")}
        requests.append(json.dumps({"custom_id": question.mark, "method": "POST", "url": "/v1/chat/completions", "body": body}))
    content = "\n".join(requests).encode()
    async with httpx.AsyncClient(timeout=CLIENT_TIMEOUT_S, trust_env=False) as client:
        file = await _until_taken(client, base_urls, "/v1/files", files={"file": ("lines.jsonl", content)}, data={"purpose": "batch"})
        if file is None:
            return None
        made = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = await _until_taken(client, base_urls, "/v1/batches", json=made)
        if batch is None:
            return None
        batch_id, status = str(batch["id"]), "not over in time"
        began, end, troubles = time.monotonic(), until + BATCH_PATIENCE_S, []
        while time.monotonic() < end:
            try:
                response = await client.get(f"{rng.choice(base_urls)}/v1/batches/{batch_id}")
            except httpx.TransportError as error:
                troubles.append(f"{type(error).__name__}: {error}")
            else:
                if response.status_code == 200 and response.json()["status"] in _OVER:
                    batch = response.json()
                    status = str(batch["status"])
                    break
            await asyncio.sleep(0.5)
        results: list[Mapping[str, Any]] = []
        for name in ("output_file_id", "error_file_id"):
            if status == "completed" and batch.get(name):
                results += await _lines_of(client, base_urls, str(batch[name]))
        return BatchSeen(batch_id, status, lines, results, troubles, time.monotonic() - began)


async def _until_taken(client: httpx.AsyncClient, base_urls: Sequence[str], path: str, **sent: Any) -> dict[str, Any] | None:
    """The answer of the first replica that takes it; a 503 is asked again, as clients do."""
    end = time.monotonic() + _ADMIT_PATIENCE_S
    while time.monotonic() < end:
        for base_url in base_urls:
            response = await client.post(f"{base_url}{path}", **sent)
            if response.status_code == 200:
                taken: dict[str, Any] = response.json()
                return taken
            if response.status_code != 503:
                raise RuntimeError(f"{path}: {response.status_code} {response.text[:300]}")
        await asyncio.sleep(1.0)
    return None


async def _lines_of(client: httpx.AsyncClient, base_urls: Sequence[str], file_id: str) -> list[Mapping[str, Any]]:
    end = time.monotonic() + _ADMIT_PATIENCE_S
    while True:
        response = await client.get(f"{base_urls[0]}/v1/files/{file_id}/content")
        if response.status_code == 200:
            return [orjson.loads(line) for line in response.content.splitlines()]
        if response.status_code != 503 or time.monotonic() > end:
            raise RuntimeError(f"{file_id}: {response.status_code} {response.text[:300]}")
        await asyncio.sleep(1.0)
