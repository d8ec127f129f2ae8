"""What somebody says about an answer, on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.schemas.validation import validate
from domain.errors import InvalidRequest
from experts_registry.fields import storable

MAX_NAMED = 64
"""Experts that ``correct_expert`` names: more than any panel has."""

Label = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(storable)]


class FeedbackBody(BaseModel):
    """``POST /v1/feedback``: a request, and one thing that is said of it."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    request_id: Label | None = None
    """``x-request-id`` of the answer; where several requests came with the same one, the newest of them is meant."""
    trace_id: Label | None = None
    """Instead of `request_id`: the id of one trace, which is its alone."""
    score: Annotated[float, Field(ge=0, le=1)] | None = None
    """How good the answer is, from 0 to 1."""
    correct: bool | None = None
    """Whether the answer is right: a score of 1 or 0."""
    correct_expert: Label | Annotated[list[Label], Field(max_length=MAX_NAMED)] | None = None
    """Which of the experts that were considered was right, or is; several as a list, none as an empty one."""
    id: Label | None = None
    """For more than one thing that is said of a request: a name for this one, of the caller's choice."""

    @property
    def given(self) -> Mapping[str, Any]:
        """The one thing that is said, in one spelling."""
        if self.score is not None:
            return {"score": self.score}
        if self.correct is not None:
            return {"correct": self.correct}
        named = self.correct_expert if isinstance(self.correct_expert, list) else [str(self.correct_expert)]
        return {"correct_expert": sorted(dict.fromkeys(named))}


def parse_feedback(payload: Mapping[str, Any]) -> FeedbackBody:
    """Raises ``InvalidRequest`` that names the field."""
    body = validate(FeedbackBody, payload)
    if (body.request_id is None) is (body.trace_id is None):
        told = "request_id and trace_id are given: give one of them" if body.trace_id is not None else "request_id is missing"
        raise InvalidRequest(f"{told}; it is x-request-id of the answer", param="request_id")
    said = [name for name in ("score", "correct", "correct_expert") if getattr(body, name) is not None]
    if len(said) != 1:
        told = f"{' and '.join(said)} are given" if said else "nothing is said of the answer"
        raise InvalidRequest(f"{told}: give one of score, correct and correct_expert", param=said[1] if said else "score")
    return body
