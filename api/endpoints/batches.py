"""``/v1/batches``: many requests in a file, answered in a file."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace

from fastapi import APIRouter, Depends, Request, Response

from api.admission import caller_of
from api.body import json_object
from api.dependencies import StoredServices, require_key
from api.json_response import json_response
from api.openapi import answers, asks, body_of
from api.schemas.answers import BatchList, BatchTold
from api.schemas.batches import BatchBody, BatchesQuery, batch_object, parse_batch
from api.schemas.files import page_object
from api.schemas.validation import validate

router = APIRouter(tags=["batches"], dependencies=[Depends(require_key)])


@router.post("/v1/batches", openapi_extra=body_of(BatchBody), responses=answers(BatchTold))
async def create_batch(request: Request, services: StoredServices) -> Response:
    """Begin a batch. Its input is read first (`validating`); what is wrong with it is then told line by line in `errors`."""
    caller, known = caller_of(request), services.directory.snapshot().strategies.values()
    strategies = {strategy.id: strategy.enabled for strategy in known if caller.access.may_use_strategy(strategy.id)}
    batch = parse_batch(await json_object(request), batch_id=f"batch_{uuid.uuid4().hex}", now=time.time(), strategies=strategies)
    batch = await services.batch_store.create(replace(batch, key_id=caller.key_id), caller.owner)
    services.batches.service.wake()
    return json_response(batch_object(batch))


@router.get("/v1/batches", openapi_extra=asks(BatchesQuery), responses=answers(BatchList))
async def list_batches(request: Request, services: StoredServices) -> Response:
    """Batches, newest first; `limit` and `after` as OpenAI's."""
    asked = validate(BatchesQuery, dict(request.query_params))
    found = await services.batch_store.list(limit=asked.limit + 1, after=asked.after, of=caller_of(request).owner)
    return json_response(page_object([batch_object(batch) for batch in found], asked.limit))


@router.get("/v1/batches/{batch_id}", responses=answers(BatchTold))
async def get_batch(batch_id: str, request: Request, services: StoredServices) -> Response:
    """Where a batch stands."""
    return json_response(batch_object(await services.batch_store.get(batch_id, caller_of(request).owner)))


@router.post("/v1/batches/{batch_id}/cancel", responses=answers(BatchTold))
async def cancel_batch(batch_id: str, request: Request, services: StoredServices) -> Response:
    """Ask it to stop. What was answered by then is written to its files; 409 when it is over."""
    batch = await services.batch_store.cancel(batch_id, caller_of(request).owner)
    services.batches.service.wake()
    return json_response(batch_object(batch))
