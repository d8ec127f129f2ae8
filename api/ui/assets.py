"""What the browser is sent beside pages: read and packed once, named after its content, so that it may be kept for ever."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

FOLDER = Path(__file__).parent / "static"
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"
_MIN_PACKED = 1024
"""Bytes from which packing is worth it."""

router = APIRouter(prefix="/admin/static")


@dataclass(frozen=True, slots=True)
class Asset:
    """One file."""

    content: bytes
    packed: bytes | None
    media_type: str
    version: str


@cache
def assets() -> dict[str, Asset]:
    """All of them, by their path below ``static/``."""
    return {str(file.relative_to(FOLDER)): _asset(file) for file in sorted(FOLDER.rglob("*")) if file.is_file()}


def _asset(file: Path) -> Asset:
    content = file.read_bytes()
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    packed = gzip.compress(content, mtime=0) if len(content) >= _MIN_PACKED else None
    return Asset(content, packed, kind, hashlib.sha256(content).hexdigest()[:12])


def address_of(name: str) -> str:
    """Where a page finds the asset *name*. Raises ``KeyError``."""
    return f"/admin/static/{name}?v={assets()[name].version}"


@router.get("/{name:path}", include_in_schema=False)
async def get_asset(request: Request, name: str) -> Response:
    """One asset. Needs no login: nothing in it is anybody's."""
    asset = assets().get(name)
    if asset is None:
        return Response(status_code=404)
    tag = f'"{asset.version}"'
    headers = {
        "etag": tag,
        "cache-control": _FOR_EVER if request.query_params.get("v") == asset.version else _ASK_AGAIN,
        "vary": "accept-encoding",
        "x-content-type-options": "nosniff",
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    content = asset.content
    if asset.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["content-encoding"] = asset.packed, "gzip"
    return Response(content, headers=headers, media_type=asset.media_type)
