"""``/v1/batches``: many requests in a file, answered in a file."""

from __future__ import annotations

import time
import uuid
from typing import Any

from fastapi import APIRouter, Depends, Request

from api.body import json_object
from api.dependencies import StoredServices, require_key
from api.openapi import ERRORS, body_of
from api.schemas.batches import BatchBody, BatchesQuery, batch_object, parse_batch
from api.schemas.files import page_object
from api.schemas.validation import validate

router = APIRouter(tags=["batches"], dependencies=[Depends(require_key)])


@router.post("/v1/batches", openapi_extra=body_of(BatchBody), responses=ERRORS)
async def create_batch(request: Request, services: StoredServices) -> dict[str, Any]:
    """Begin a batch. Its input is read first (`validating`); what is wrong with it is then told line by line in `errors`."""
    strategies = {strategy.id: strategy.enabled for strategy in services.directory.snapshot().strategies.values()}
    batch = parse_batch(await json_object(request), batch_id=f"batch_{uuid.uuid4().hex}", now=time.time(), strategies=strategies)
    batch = await services.batch_store.create(batch)
    services.batches.service.wake()
    return batch_object(batch)


@router.get("/v1/batches", responses=ERRORS)
async def list_batches(request: Request, services: StoredServices) -> dict[str, Any]:
    """Batches, newest first; `limit` and `after` as OpenAI's."""
    asked = validate(BatchesQuery, dict(request.query_params))
    found = await services.batch_store.list(limit=asked.limit + 1, after=asked.after)
    return page_object([batch_object(batch) for batch in found], asked.limit)


@router.get("/v1/batches/{batch_id}", responses=ERRORS)
async def get_batch(batch_id: str, services: StoredServices) -> dict[str, Any]:
    """Where a batch stands."""
    return batch_object(await services.batch_store.get(batch_id))


@router.post("/v1/batches/{batch_id}/cancel", responses=ERRORS)
async def cancel_batch(batch_id: str, services: StoredServices) -> dict[str, Any]:
    """Ask it to stop. What was answered by then is written to its files; 409 when it is over."""
    batch = await services.batch_store.cancel(batch_id)
    services.batches.service.wake()
    return batch_object(batch)
