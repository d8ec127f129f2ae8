"""Ask one question of several strategies or experts at once, and see why each went where it went."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from fastapi import Response
from fastapi.responses import StreamingResponse

from api.errors import wire_body
from api.schemas.chat import Options, Sampling
from api.ui.explanation import explained
from api.ui.forms import Form
from api.ui.model_forms import body_of, fields_of, shown
from api.ui.pages.requests import HASHED, models_of
from api.ui.visit import Visit, VisitDep, page_router
from domain.errors import InvalidRequest, NotFound
from orchestrator.aggregation.catalogue import AGGREGATORS

router = page_router(prefix="/playground")

CHAT = "/v1/chat/completions"
OPTIONS = {
    **fields_of(Options, leave_out={"consilium.explain"}, prefix="consilium."),
    **{name: field for name, field in fields_of(Sampling).items() if name in {"temperature", "top_p", "max_tokens", "seed"}},
}
"""What a request can say beside its question, by the names of the API."""
_HINTS = {"consilium.seed": "Routing seed", "seed": "Sampling seed", "consilium.k": "Experts (k)"}
MAX_PANES = 4


@router.get("")
async def playground(visit: VisitDep) -> Response:
    chosen = visit.request.query_params.getlist("model")[:MAX_PANES]
    return visit.page(
        "playground.html",
        models=models_of(visit),
        chosen=chosen or ["auto"],
        question=visit.asked("question") or "",
        fields=list(OPTIONS.values()),
        values=shown(OPTIONS, {}),
        hints=_HINTS,
        choices={
            "consilium.router": sorted(visit.services.routers),
            "consilium.aggregator": sorted(AGGREGATORS),
        },
        max_panes=MAX_PANES,
    )


@router.post("/ask")
async def ask(visit: VisitDep) -> Response:
    """The answer of one model as the API streams it."""
    try:
        body = chat_body(visit.form)
    except InvalidRequest as error:
        return Response(
            orjson.dumps(wire_body(400, error.message, error.code, error.param)), status_code=400, media_type="application/json"
        )
    asked = {**body, "stream": True, "consilium": {**body.get("consilium", {}), "explain": True}}
    stream = visit.rest.stream(CHAT, asked)
    response = await stream.__aenter__()
    if response.is_error:
        content = await response.aread()
        await stream.__aexit__(None, None, None)
        return Response(content, status_code=response.status_code, media_type="application/json")

    async def passed_on() -> AsyncIterator[bytes]:
        try:
            async for piece in response.aiter_bytes():
                yield piece
        finally:
            await stream.__aexit__(None, None, None)

    return StreamingResponse(passed_on(), media_type="text/event-stream", headers={"x-asked": response.headers.get("x-request-id", "")})


def chat_body(form: Form) -> dict[str, Any]:
    """The request that the form says, without what the playground itself adds. Raises ``InvalidRequest``."""
    body, problems = body_of(OPTIONS, form)
    if problems:
        name, message = next(iter(problems.by_field.items()))
        raise InvalidRequest(f"{name}: {message}", param=name)
    question, system = form.text("question"), form.text("system")
    if not question:
        raise InvalidRequest("a question is needed", param="question")
    messages = [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": question}]
    return {"model": form.text("model", "auto"), "messages": messages, **body}


@router.post("/explained")
async def explain(visit: VisitDep) -> Response:
    """The explanation that came with an answer, as a page shows it, with the candidates' words where traces keep them."""
    told = _object(visit.form.text("told"))
    body = chat_body(visit.form)
    prices = {card.id: card.price for card in visit.services.directory.snapshot().experts.values()}
    trace_id, texts = await _kept(visit, str(told.get("request_id", "")))
    calls = [{**call, "text": text} for call, text in zip(told.get("calls", ()), texts, strict=False)] or told.get("calls", ())
    return visit.page(
        "fragments/played.html",
        explanation=explained({**told, "calls": calls}, prices),
        key=visit.form.text("pane", "x"),
        trace_id=trace_id,
        curl=as_curl(body, str(visit.request.base_url)),
        python=as_python(body, str(visit.request.base_url)),
    )


async def _kept(visit: Visit, request_id: str) -> tuple[str | None, list[str | None]]:
    """The trace of the request, and what each call said; None and nothing where traces keep neither."""
    if not visit.services.settings.traces or not request_id:
        return None, []
    try:
        trace = await visit.services.trace_store.newest(request_id)
    except NotFound:
        return None, []
    return trace.id, [None if call.text is not None and call.text.startswith(HASHED) else call.text for call in trace.calls]


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
        found["timings_ms"]["total"], found["calls"], found["considered"]  # what the page shows has to be there
    except (ValueError, TypeError, KeyError):
        raise InvalidRequest("this is no explanation of an answer", param="told") from None
    return dict(found)


def as_curl(body: Mapping[str, Any], base_url: str) -> str:
    """The request for a terminal."""
    text = json.dumps(body, indent=2, ensure_ascii=False).replace("'", "'\\''")
    lines = (
        f"curl {base_url}v1/chat/completions",
        "-H 'content-type: application/json'",
        '-H "authorization: Bearer $CONSILIUM_KEY"',
        f"-d '{text}'",
    )
    return " \\\n  ".join(lines)


def as_python(body: Mapping[str, Any], base_url: str) -> str:
    """The request for OpenAI's client."""
    own = {name: value for name, value in body.items() if name not in {"model", "messages", "consilium"}}
    lines = [
        "import os",
        "",
        "from openai import OpenAI",
        "",
        f'client = OpenAI(base_url="{base_url}v1", api_key=os.environ.get("CONSILIUM_KEY", "none"))',
        "answer = client.chat.completions.create(",
        f"    model={body['model']!r},",
        f"    messages={body['messages']!r},",
        *(f"    {name}={value!r}," for name, value in own.items()),
        *([f"    extra_body={{'consilium': {body['consilium']!r}}},"] if body.get("consilium") else []),
        ")",
        "print(answer.choices[0].message.content)",
    ]
    return "\n".join(lines)
