"""Files on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from domain.batch import FilePurpose, StoredFile


class FilesQuery(BaseModel):
    """``GET /v1/files``. Values come as text."""

    model_config = ConfigDict(extra="forbid")

    purpose: Literal["batch", "batch_output"] | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None

    @property
    def of_purpose(self) -> FilePurpose | None:
        return None if self.purpose is None else FilePurpose(self.purpose)


def file_object(file: StoredFile) -> dict[str, Any]:
    """OpenAI's file object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.num_bytes,
        "created_at": int(file.created_at),
        "expires_at": None if file.expires_at is None else int(file.expires_at),
        "filename": file.filename,
        "purpose": file.purpose.value,
        "status": "processed",
        "status_details": None,
    }


def page_object(found: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """OpenAI's list of at most *limit* objects, made from one more where there is one."""
    data = found[:limit]
    first_id, last_id = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first_id, "last_id": last_id, "has_more": len(found) > limit}
