"""``/v1/files``: the input of batches and what they write."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from api.admission import caller_of
from api.dependencies import StoredServices, require_key
from api.file_content import FileContent
from api.json_response import json_response
from api.openapi import answers, answers_with, asks
from api.schemas.answers import FileDeleted, FileList, FileTold
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


@router.post("/v1/files", openapi_extra=_FORM, responses=answers(FileTold))
async def create_file(request: Request, services: StoredServices) -> Response:
    """Upload the input of a batch."""
    key_id = caller_of(request).key_id
    stored = await receive_file(request, services.file_store, services.upload_room, services.settings, key_id=key_id)
    return json_response(file_object(stored))


@router.get("/v1/files", openapi_extra=asks(FilesQuery), responses=answers(FileList))
async def list_files(request: Request, services: StoredServices) -> Response:
    """Files, newest first; `purpose`, `limit`, `order` and `after` as OpenAI's."""
    asked = validate(FilesQuery, dict(request.query_params))
    found = await services.file_store.list(
        purpose=asked.of_purpose,
        limit=asked.limit + 1,
        after=asked.after,
        oldest_first=asked.order == "asc",
        owner=caller_of(request).owner,
    )
    return json_response(page_object([file_object(file) for file in found], asked.limit))


@router.get("/v1/files/{file_id}", responses=answers(FileTold))
async def get_file(file_id: str, request: Request, services: StoredServices) -> Response:
    """What is known of one file."""
    return json_response(file_object(await services.file_store.get(file_id, caller_of(request).owner)))


@router.get(
    "/v1/files/{file_id}/content",
    response_class=Response,
    responses=answers_with("application/octet-stream", type="string", format="binary"),
)
async def get_file_content(file_id: str, request: Request, services: StoredServices) -> Response:
    """The file itself."""
    file = await services.file_store.get(file_id, caller_of(request).owner)
    content = await services.file_store.open(file_id)
    return FileContent(file, content, send_timeout_s=services.settings.send_timeout_s)


@router.delete("/v1/files/{file_id}", responses=answers(FileDeleted))
async def delete_file(file_id: str, request: Request, services: StoredServices) -> Response:
    """Delete it. 409 while a batch that is not over reads it."""
    await services.file_store.delete(file_id, caller_of(request).owner)
    return json_response({"id": file_id, "object": "file", "deleted": True})
