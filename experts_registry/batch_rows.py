"""Batches and their lines as rows, and back. Pure."""

from __future__ import annotations

from dataclasses import asdict, replace
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from domain.batch import (
    Batch,
    BatchError,
    BatchLine,
    BatchOptions,
    BatchRunner,
    BatchState,
    InputLine,
    KeptCall,
    LineResult,
    LineRoute,
    RequestCounts,
    RoutedLine,
)
from domain.chat import Usage
from domain.plan import Candidate
from experts_registry.batch_usage import call_usage
from experts_registry.outcome_codec import (
    outcome_to_object,
    recollection_from_object,
    recollection_to_object,
    route_from_object,
    route_to_object,
    to_json,
)

UNFINISHED = tuple(state.value for state in BatchState if not state.is_final)
"""States of batches that are not over."""


class LineState(StrEnum):
    """Of ``batch_lines``."""

    PENDING = "pending"
    ANSWERED = "answered"
    FAILED = "failed"


def to_row(batch: Batch) -> dict[str, Any]:
    """Every column but the owner's."""
    return {
        "id": batch.id,
        "endpoint": batch.endpoint,
        "input_file_id": batch.input_file_id,
        "state": batch.state.value,
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        "completion_window": batch.window,
        "options": {name: value for name, value in asdict(batch.options).items() if value is not None},
        "metadata": dict(batch.metadata),
        "runner": batch.runner.value,
        "entered": {state.value: moment for state, moment in batch.entered.items()},
        "num_lines": batch.counts.total,
        "num_completed": batch.counts.completed,
        "num_failed": batch.counts.failed,
        **usage_columns(batch.usage),
        "num_calls": batch.num_calls,
        "errors": errors_to_json(batch.errors),
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "ended_at": batch.entered.get(batch.state) if batch.state.is_final else None,
        "key_id": batch.key_id,
    }


def from_row(row: sa.RowMapping) -> Batch:
    return Batch(
        id=row["id"],
        endpoint=row["endpoint"],
        input_file_id=row["input_file_id"],
        state=BatchState(row["state"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        window=row["completion_window"],
        options=BatchOptions(**row["options"]),
        metadata=row["metadata"],
        runner=BatchRunner(row["runner"]),
        entered={BatchState(state): moment for state, moment in row["entered"].items()},
        counts=RequestCounts(row["num_lines"], row["num_completed"], row["num_failed"]),
        usage=Usage(row["prompt_tokens"], row["completion_tokens"], row["usage_details"]),
        num_calls=row["num_calls"],
        errors=tuple(BatchError(**error) for error in row["errors"]),
        output_file_id=row["output_file_id"],
        error_file_id=row["error_file_id"],
        key_id=row["key_id"],
    )


def usage_columns(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "usage_details": to_json(usage.details),
    }


def errors_to_json(errors: tuple[BatchError, ...]) -> list[dict[str, Any]]:
    return [{**asdict(error), "code": str(error.code)} for error in errors]


def line_row(batch_id: str, line: InputLine) -> dict[str, Any]:
    return {
        "batch_id": batch_id,
        "number": line.line.number,
        "custom_id": line.line.custom_id,
        "offset": line.offset,
        "num_bytes": line.num_bytes,
        "state": LineState.PENDING.value,
    }


def routed_line(row: sa.RowMapping) -> RoutedLine:
    line = InputLine(BatchLine(row["number"], row["custom_id"]), row["offset"], row["num_bytes"])
    if row["route"] is None:
        return RoutedLine(line)
    recalled = None if row["recalled"] is None else recollection_from_object(row["recalled"])
    route = replace(route_from_object(row["route"]), vector=row["vector"], encoder_id=row["encoder_id"], recalled=recalled)
    return RoutedLine(line, route)


def route_values(number: int, route: LineRoute) -> dict[str, Any]:
    """Parameters of the statement that stores it."""
    return {
        "of_number": number,
        "new_route": to_json(route_to_object(route)),
        "new_vector": route.vector,
        "new_encoder_id": route.encoder_id,
        "new_recalled": None if route.recalled is None else to_json(recollection_to_object(route.recalled)),
    }


def call_row(batch_id: str, call: KeptCall) -> dict[str, Any]:
    usage = call_usage(call)
    return {
        "batch_id": batch_id,
        "number": call.number,
        "position": call.position,
        "answered": isinstance(call.outcome, Candidate),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "outcome": to_json(outcome_to_object(call.outcome)),
    }


def result_values(result: LineResult) -> dict[str, Any]:
    """Parameters of the statement that stores it."""
    return {
        "of_number": result.number,
        "new_state": (LineState.ANSWERED if result.error is None else LineState.FAILED).value,
        "new_request_id": result.request_id,
        "new_status": result.status,
        "new_body": None if result.body is None else to_json(result.body),
        "new_error": None if result.error is None else to_json(result.error),
    }


def line_result(row: sa.RowMapping) -> LineResult:
    return LineResult(row["number"], row["request_id"], row["status"], row["body"], row["error"])
