"""``/admin/api/keys``: who may come in, and what they used."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.queries import PAGED, Page, query_of
from api.endpoints.admin.resources import Body, Json, OptionalBody, Version, described_by, etag_of, one, page
from api.endpoints.admin.versioned import VersionedResource
from api.json_response import json_response
from api.openapi import answers, asks
from api.schemas.admin_answers import SERVED_OF_KEYS, KeyIssued, KeyTold, PageOf, Rows, UsageRow
from api.schemas.admin_queries import UsageQuery
from domain.keys import ApiKey
from domain.spending import NANO
from experts_registry.key_models import KeyModel, RotateModel
from experts_registry.manifest import parse

if TYPE_CHECKING:
    from experts_registry.key_usage import KeyUsage

router = APIRouter(prefix="/keys")
_SCHEMA, _PATCH = described_by(KeyModel), described_by(KeyModel, partial=True)
_COLUMNS = ("key", "day", "expert", "requests", "calls", "failed", "prompt_tokens", "completion_tokens", "usd")


def _body_of(key: ApiKey) -> Json:
    return KeyModel.from_key(key).model_dump(mode="json")


def _key_of(body: Json) -> ApiKey:
    return parse(KeyModel, body).to_key()


def _view(key: ApiKey, last_used: Mapping[str, float] | None = None) -> Json:
    """*key* without any secret, and without the hashes of them."""
    now = time.time()
    told = {
        **_body_of(key),
        "state": key.state(now),
        "prefix": key.secrets[0].prefix if key.secrets else None,
        "secrets": [
            {"prefix": secret.prefix, "until": secret.until} for secret in key.secrets if secret.until is None or secret.until > now
        ],
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }
    return told if last_used is None else {**told, "last_used_at": last_used.get(key.id)}


def _resource(services: ServicesDep) -> VersionedResource[ApiKey]:
    return VersionedResource(
        kind="key",
        path="/admin/api/keys",
        store=services.keys.store,
        item_of=_key_of,
        body_of=_body_of,
        view_of=_view,
        served=SERVED_OF_KEYS,
        changed=services.directory.refresh,
    )


Resource = Annotated[VersionedResource[ApiKey], Depends(_resource)]


@router.get("", openapi_extra=PAGED, responses=answers(PageOf[KeyTold]))
async def list_keys(services: ServicesDep, asked: Page) -> Response:
    """The keys, revoked ones too. Secrets are never told: a key is known by its `prefix`."""
    last_used = await services.keys.usage.last_used()
    return page(await services.keys.store.list(), lambda key: key.id, lambda key: _view(key, last_used), asked)


@router.post("", status_code=201, openapi_extra=_SCHEMA, responses=answers(KeyIssued, 201))
async def create_key(services: ServicesDep, body: Body) -> Response:
    """Create a key. Its secret is in `key`, in this answer and never again; only a hash of it is kept. 409 when the id is taken."""
    key = _key_of({name: value for name, value in body.items() if name not in SERVED_OF_KEYS})
    stored, secret = await services.keys.store.issue(key)
    await services.directory.refresh()
    return one({**_view(stored), "key": secret}, etag_of(stored.version), status=201, location=f"/admin/api/keys/{stored.id}")


@router.get("/usage", openapi_extra=asks(UsageQuery), responses=answers(Rows[UsageRow], also={"text/csv": {"schema": {"type": "string"}}}))
async def usage(services: ServicesDep, asked: Annotated[UsageQuery, Depends(query_of(UsageQuery))]) -> Response:
    """What keys used: a row for each key, UTC day and expert, and one without an expert for the key's requests."""
    found = await services.keys.usage.usage(key_id=asked.key, since=asked.since, until=asked.until)
    rows = [_usage_row(row) for row in found]
    if asked.format == "csv":
        disposition = {"content-disposition": 'attachment; filename="usage.csv"'}
        return Response(_csv(rows), media_type="text/csv; charset=utf-8", headers=disposition)
    return json_response({"data": rows})


@router.get("/{key_id}", responses=answers(KeyTold))
async def get_key(services: ServicesDep, key_id: str) -> Response:
    """One key, and when it was used last."""
    key = await services.keys.store.get(key_id)
    return one(_view(key, await services.keys.usage.last_used()), etag_of(key.version))


@router.put("/{key_id}", openapi_extra=_SCHEMA, responses=answers(KeyTold))
async def put_key(services: ServicesDep, resource: Resource, key_id: str, body: Body, version: Version) -> Response:
    """Replace what may be changed of a key; its secret stays. With `If-Match`, 412 when it was changed meanwhile."""
    await services.keys.store.get(key_id)  # one that is made has to be told its secret: POST does
    return await resource.put(key_id, body, version)


@router.patch("/{key_id}", openapi_extra=_PATCH, responses=answers(KeyTold))
async def patch_key(resource: Resource, key_id: str, body: Body, version: Version) -> Response:
    """Change some fields (JSON merge patch). With `If-Match`, 412 when it was changed meanwhile."""
    return await resource.patch(key_id, body, version)


@router.delete("/{key_id}", status_code=204)
async def revoke_key(resource: Resource, key_id: str, version: Version) -> Response:
    """Revoke it, for good. It stays in the list, and what it used stays accounted for."""
    return await resource.delete(key_id, version)


@router.post("/{key_id}/rotate", openapi_extra=described_by(RotateModel, required=False), responses=answers(KeyIssued))
async def rotate_key(services: ServicesDep, key_id: str, body: OptionalBody, version: Version) -> Response:
    """A new secret, told in `key` this once. Those before it work for `overlap_s` more."""
    asked = parse(RotateModel, body)
    current = await services.keys.store.get(key_id)
    version.check(etag_of(current.version), f"key {key_id!r}")
    if_version = current.version if version.is_sent else None
    stored, secret = await services.keys.store.rotate(key_id, overlap_s=asked.overlap_s, if_version=if_version)
    await services.directory.refresh()
    return one({**_view(stored), "key": secret}, etag_of(stored.version))


def _usage_row(row: KeyUsage) -> Json:
    count = row.count
    values = (
        row.key_id, row.day, row.expert_id, count.num_requests, count.num_calls, count.num_failed,
        count.prompt_tokens, count.completion_tokens, count.nano_usd / NANO,
    )  # fmt: skip
    return dict(zip(_COLUMNS, values, strict=True))


def _csv(rows: Iterable[Json]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
