"""Batches on the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from api.schemas.validation import validate
from domain.batch import BATCH_ENDPOINTS, Batch, BatchOptions, BatchState
from domain.chat import Usage
from domain.errors import InvalidRequest
from domain.nearest import did_you_mean

MAX_WINDOW_S = 30 * 86_400
"""Longest window: as long as files are kept by default."""
MAX_METADATA = 16
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512
"""OpenAI's bounds of metadata: pairs, and characters of each."""
_WINDOW = re.compile(r"([1-9][0-9]{0,5})([mhd])", re.ASCII)
_UNIT_S = {"m": 60, "h": 3600, "d": 86_400}
_MOMENTS = {
    "in_progress_at": BatchState.IN_PROGRESS,
    "finalizing_at": BatchState.FINALIZING,
    "completed_at": BatchState.COMPLETED,
    "failed_at": BatchState.FAILED,
    "expired_at": BatchState.EXPIRED,
    "cancelling_at": BatchState.CANCELLING,
    "cancelled_at": BatchState.CANCELLED,
}


class BatchesQuery(BaseModel):
    """``GET /v1/batches``. Values come as text."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    after: str | None = None


class BatchConsilium(BaseModel):
    """The extra body object ``consilium``: what holds for the whole batch."""

    model_config = ConfigDict(strict=True, extra="forbid")

    strategy: str | None = None
    max_calls: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None


class BatchBody(BaseModel):
    """``POST /v1/batches``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    input_file_id: Annotated[str, Field(min_length=1, max_length=64)]
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    consilium: BatchConsilium | None = None
    output_expires_after: Any = None

    @field_validator("endpoint")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in BATCH_ENDPOINTS:
            raise ValueError(f"there are no batches for {value[:64]!r}; {did_you_mean(value[:64], BATCH_ENDPOINTS, always_list=True)}")
        return value

    @field_validator("completion_window")
    @classmethod
    def _is_window(cls, value: str) -> str:
        window_s(value)
        return value

    @field_validator("metadata", mode="before")
    @classmethod
    def _are_few(cls, value: object) -> object:
        if isinstance(value, dict) and len(value) > MAX_METADATA:  # before each of them is looked at
            raise ValueError(f"has {len(value)} pairs, at most {MAX_METADATA} are kept")
        return value

    @field_validator("metadata")
    @classmethod
    def _is_short(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        if value is None:
            return None
        for key, text in value.items():
            if len(key) > MAX_METADATA_KEY:
                raise ValueError(f"the key {key[:20] + '…'!r} has {len(key)} characters, at most {MAX_METADATA_KEY} are kept")
            if len(text) > MAX_METADATA_VALUE:
                raise ValueError(f"the value of {key!r} has {len(text)} characters, at most {MAX_METADATA_VALUE} are kept")
        return value

    @field_validator("output_expires_after")
    @classmethod
    def _not_chosen(cls, value: object) -> object:
        if value is not None:
            raise ValueError("is not supported: what batches write is kept for CONSILIUM_FILE_DAYS; leave it out")
        return value


def parse_batch(payload: Mapping[str, Any], *, batch_id: str, now: float, strategies: Mapping[str, bool]) -> Batch:
    """*payload* as a batch that begins *now*. *strategies*: whether each is enabled. Raises ``InvalidRequest``."""
    body = validate(BatchBody, payload)
    asked = body.consilium or BatchConsilium()
    strategy = None if asked.strategy is None else known_strategy(asked.strategy, strategies)
    return Batch(
        id=batch_id,
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        state=BatchState.VALIDATING,
        created_at=now,
        expires_at=now + window_s(body.completion_window),
        window=body.completion_window,
        options=BatchOptions(strategy, asked.max_calls, asked.max_tokens),
        metadata=body.metadata or {},
        entered={BatchState.VALIDATING: now},
    )


def window_s(text: str) -> int:
    """The seconds of a window as in "90m", "24h" or "7d". Raises ``ValueError``, worded for the field's name in front."""
    match = _WINDOW.fullmatch(text)
    seconds = int(match[1]) * _UNIT_S[match[2]] if match else 0
    if not 0 < seconds <= MAX_WINDOW_S:
        raise ValueError(f"{text[:20]!r} is no window: write a number of minutes, hours or days up to 30 days, e.g. '90m', '24h' or '7d'")
    return seconds


def batch_object(batch: Batch) -> dict[str, Any]:
    """OpenAI's batch object, and what is particular to this service under ``consilium``."""
    moments = {name: int(batch.entered[state]) if state in batch.entered else None for name, state in _MOMENTS.items()}
    errors = [{"code": str(e.code), "message": e.message, "param": e.param, "line": e.line} for e in batch.errors]
    counts, options = batch.counts, batch.options
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.window,
        "status": batch.state.value,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": int(batch.created_at),
        "expires_at": int(batch.expires_at),
        **moments,
        "request_counts": {"total": counts.total, "completed": counts.completed, "failed": counts.failed},
        "usage": _usage_object(batch.usage),
        "metadata": dict(batch.metadata) or None,
        "consilium": {
            "strategy": options.strategy,
            "max_calls": options.max_calls,
            "max_tokens": options.max_tokens,
            "num_calls": batch.num_calls,
            "runner": batch.runner.value,
        },
    }


def _usage_object(usage: Usage) -> dict[str, Any]:
    """In the words of the batch object, which are not those of a completion."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": _detail(usage, "prompt_tokens_details", "cached_tokens")},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": _detail(usage, "completion_tokens_details", "reasoning_tokens")},
        "total_tokens": usage.total_tokens,
    }


def _detail(usage: Usage, group: str, name: str) -> int:
    found = usage.details.get(group)
    value = found.get(name) if isinstance(found, Mapping) else None
    return value if isinstance(value, int) else 0


def known_strategy(asked: str, strategies: Mapping[str, bool]) -> str:
    """The id of the strategy *asked* for, if it is there and enabled. Raises ``InvalidRequest``."""
    name = asked.removeprefix("consilium/")
    if strategies.get(name):
        return name
    if name in strategies:
        raise InvalidRequest(f"consilium.strategy: {name!r} is disabled; enable it, or choose another", param="consilium.strategy")
    hint = did_you_mean(name[:64], sorted(known for known, enabled in strategies.items() if enabled), always_list=True)
    raise InvalidRequest(f"consilium.strategy: there is no strategy {name[:64]!r}; {hint}", param="consilium.strategy")
