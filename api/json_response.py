"""A value as a JSON response."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Response


def json_response(value: Any, *, status: int = 200) -> Response:
    """*value* as it is: nothing is looked at, what JSON cannot hold raises."""
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")
