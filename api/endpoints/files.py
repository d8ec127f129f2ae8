"""``/v1/files``: the input of batches and what they write."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from api.dependencies import StoredServices, require_key
from api.file_content import FileContent
from api.openapi import ERRORS
from api.schemas.files import FilesQuery, file_object, page_object
from api.schemas.validation import validate
from api.uploads import receive_file

router = APIRouter(tags=["batches"], dependencies=[Depends(require_key)])

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "purpose": {"type": "string", "enum": ["batch"]},
                        "file": {"type": "string", "format": "binary", "description": "One JSON object a line."},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2592000},
                    },
                }
            }
        },
    }
}


@router.post("/v1/files", openapi_extra=_FORM, responses=ERRORS)
async def create_file(request: Request, services: StoredServices) -> dict[str, Any]:
    """Upload the input of a batch."""
    return file_object(await receive_file(request, services.file_store, services.upload_room, services.settings))


@router.get("/v1/files", responses=ERRORS)
async def list_files(request: Request, services: StoredServices) -> dict[str, Any]:
    """Files, newest first; `purpose`, `limit`, `order` and `after` as OpenAI's."""
    asked = validate(FilesQuery, dict(request.query_params))
    found = await services.file_store.list(
        purpose=asked.of_purpose, limit=asked.limit + 1, after=asked.after, oldest_first=asked.order == "asc"
    )
    return page_object([file_object(file) for file in found], asked.limit)


@router.get("/v1/files/{file_id}", responses=ERRORS)
async def get_file(file_id: str, services: StoredServices) -> dict[str, Any]:
    """What is known of one file."""
    return file_object(await services.file_store.get(file_id))


@router.get("/v1/files/{file_id}/content", response_class=Response, responses=ERRORS)
async def get_file_content(file_id: str, services: StoredServices) -> Response:
    """The file itself."""
    file = await services.file_store.get(file_id)
    content = await services.file_store.open(file_id)
    return FileContent(file, content, send_timeout_s=services.settings.send_timeout_s)


@router.delete("/v1/files/{file_id}", responses=ERRORS)
async def delete_file(file_id: str, services: StoredServices) -> dict[str, Any]:
    """Delete it. 409 while a batch that is not over reads it."""
    await services.file_store.delete(file_id)
    return {"id": file_id, "object": "file", "deleted": True}
