"""A batch and its lines, in the words of OpenAI's Batch API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from domain.cascade import CascadeRule
from domain.chat import Usage
from domain.errors import Conflict
from domain.memory import Recollection
from domain.plan import ExpertFailure, Outcome
from domain.skills import SkillMatch

BATCH_ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
"""What a batch can be for; every line of it asks the same one."""


class BatchState(StrEnum):
    """Where a batch stands. The values are the wire's."""

    VALIDATING = "validating"
    """Its input is being read."""
    FAILED = "failed"
    """Its input was refused, or can no longer be read; nothing (more) was run."""
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    """No call is left; the output files are being written."""
    COMPLETED = "completed"
    """The files are there. Single lines may have failed."""
    EXPIRED = "expired"
    """The window passed; what was answered by then is in the output file."""
    CANCELLING = "cancelling"
    """Asked to stop; calls that run are being ended, and what was answered is being written."""
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return not BATCH_TRANSITIONS[self]

    def may_become(self, state: BatchState) -> bool:
        return state in BATCH_TRANSITIONS[self]

    def becomes(self, state: BatchState) -> BatchState:
        """*state*, when a batch in this one may go there. Raises ``Conflict`` otherwise."""
        if self.may_become(state):
            return state
        can = ", ".join(known for known in BatchState if known in BATCH_TRANSITIONS[self])
        raise Conflict(f"a batch that is {self} cannot become {state}: {f'it can become {can}' if can else 'it is over'}")


BATCH_TRANSITIONS: Mapping[BatchState, frozenset[BatchState]] = {
    BatchState.VALIDATING: frozenset({BatchState.IN_PROGRESS, BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLING}),
    BatchState.IN_PROGRESS: frozenset({BatchState.FINALIZING, BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLING}),
    # A batch whose window passes is finalised too: what it has is written before it is called expired.
    BatchState.FINALIZING: frozenset({BatchState.COMPLETED, BatchState.FAILED, BatchState.EXPIRED}),
    BatchState.CANCELLING: frozenset({BatchState.CANCELLED}),
    BatchState.COMPLETED: frozenset(),
    BatchState.FAILED: frozenset(),
    BatchState.EXPIRED: frozenset(),
    BatchState.CANCELLED: frozenset(),
}
"""Every state with those that may follow it."""


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """How many lines a batch has, how many were answered and how many failed. ``completed + failed <= total``."""

    total: int = 0
    completed: int = 0
    failed: int = 0

    @property
    def pending(self) -> int:
        return self.total - self.completed - self.failed


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One request of a batch. Its body stays in the input file."""

    number: int
    """Of the line in the input file, the first is 1. Empty lines count but are no requests."""
    custom_id: str
    """The caller's own, unique in its batch."""


class BatchErrorCode(StrEnum):
    """What can be wrong with a batch's input, and why a line was not run. OpenAI's codes where it has one."""

    EMPTY_FILE = "empty_file"
    INVALID_JSON_LINE = "invalid_json_line"
    """No UTF-8, no JSON, or no object."""
    MISSING_PARAMETER = "missing_required_parameter"
    INVALID_TYPE = "invalid_type"
    INVALID_VALUE = "invalid_value"
    ID_TOO_LONG = "string_above_max_length"
    DUPLICATE_ID = "duplicate_custom_id"
    URL_MISMATCH = "url_mismatch"
    """A line asks another endpoint than its batch."""
    INVALID_REQUEST = "invalid_request"
    """The body is none that its endpoint takes."""
    LINE_TOO_LARGE = "line_too_large"
    FILE_TOO_LARGE = "file_too_large"
    TOO_MANY_LINES = "too_many_tasks"
    EXPIRED = "batch_expired"
    """Of a line: the window passed before it was answered."""
    CANCELLED = "batch_cancelled"
    """Of a line: the batch was cancelled before it was answered."""
    BUDGET = "batch_budget_exceeded"
    """Of a line: the batch had spent its calls or tokens before it was answered."""
    INTERNAL = "internal_error"
    """Of a batch and of its lines: carrying it out has failed again and again, by a fault of the service's own."""


@dataclass(frozen=True, slots=True)
class BatchError:
    """One entry of ``errors.data`` in OpenAI's batch object."""

    code: str
    message: str
    line: int | None = None
    """Of the input file, from 1; None when the file as a whole is at fault."""
    param: str | None = None
    """The field at fault, as a dotted path ("body.stream")."""


class FilePurpose(StrEnum):
    """What a file is for, in OpenAI's words."""

    BATCH = "batch"
    """Uploaded: the input of batches."""
    BATCH_OUTPUT = "batch_output"
    """Written by a batch: what it answered, or what went wrong."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of the Files API. Times are seconds since the epoch."""

    id: str
    purpose: FilePurpose
    filename: str
    num_bytes: int
    created_at: float
    expires_at: float | None = None
    """When it is deleted; None keeps it."""
    key_id: str | None = None
    """The key that it belongs to; None: everybody who may come in without a stored one."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What a caller may choose for a whole batch: the extra object ``consilium`` of its creation."""

    strategy: str | None = None
    """Asked for by every line whose ``model`` is ``auto``."""
    max_calls: int | None = None
    """Calls of experts that the whole batch may make; lines that would need more fail with ``BUDGET``."""
    max_tokens: int | None = None
    """Tokens, of prompts and answers, after which no further call begins."""


class BatchRunner(StrEnum):
    """Who carries a batch out."""

    SERVICE = "service"
    """Any process that serves the API on the same database."""
    COMMAND = "command"
    """Only the command line that made it (``consilium batch run``)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch. Times are seconds since the epoch."""

    id: str
    endpoint: str
    input_file_id: str
    state: BatchState
    created_at: float
    expires_at: float
    """When its window ends."""
    window: str = "24h"
    """As asked."""
    options: BatchOptions = BatchOptions()
    metadata: Mapping[str, str] = field(default_factory=dict)
    runner: BatchRunner = BatchRunner.SERVICE
    entered: Mapping[BatchState, float] = field(default_factory=dict)
    """When it came into each state that it has been in."""
    counts: RequestCounts = RequestCounts()
    usage: Usage = Usage()
    num_calls: int = 0
    """Calls of experts so far."""
    errors: tuple[BatchError, ...] = ()
    """Why its input was refused."""
    output_file_id: str | None = None
    error_file_id: str | None = None
    key_id: str | None = None
    """The key that made it, and with whose rights it runs; None without a stored one."""


@dataclass(frozen=True, slots=True)
class Waves:
    """Of a line whose next calls depend on what the ones before have answered."""

    max_calls: int
    """Calls that it may come to, its router's apart."""
    first: tuple[str, ...]
    """The experts that are asked at first, one for each call."""
    others: tuple[str, ...] = ()
    """Experts that may be asked beside those that were selected."""


@dataclass(frozen=True, slots=True)
class LineRoute:
    """What was decided for one line: enough to make its calls, to aggregate, and to say why, in about 200 bytes."""

    router: str
    selected: tuple[str, ...]
    """Candidates, best first. An expert that was drawn twice stands there twice."""
    scores: tuple[float, ...]
    """(selected): of each."""
    aggregator: str | None = None
    """The expert that will read the candidates, as far as one will; None where none is called."""
    strategy: str | None = None
    reason: str = ""
    skills: tuple[SkillMatch, ...] = ()
    category: str | None = None
    fallback: bool = False
    calls: tuple[Outcome, ...] = ()
    """Calls that the router made to decide; they count like the line's own."""
    cascade: CascadeRule | None = None
    """``selected`` are asked one after the other."""
    vector: bytes | None = field(default=None, repr=False)
    """What was routed, as the encoder saw it (``RoutingDecision.vector``); None where feedback is not learnt from. Kept until the line
    is over, then the trace has it."""
    encoder_id: str | None = None
    """Whose vector it is: a batch may outlive the encoder that it was routed with."""
    waves: Waves | None = None
    """None: ``selected`` are asked at once, then ``aggregator``."""
    recalled: Recollection | None = field(default=None, repr=False)
    """What the memory gave to it, of modes that are shown that: the line goes on with it after a kill, whatever the memory has by then.
    Kept until the line is over."""

    @property
    def num_router_calls(self) -> int:
        return sum(not isinstance(outcome, ExpertFailure) or outcome.called for outcome in self.calls)


@dataclass(frozen=True, slots=True)
class InputLine:
    """A valid line of a batch's input, by where it stands in the file."""

    line: BatchLine
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class RoutedLine:
    """A line that is not over. ``route`` is None until it was routed."""

    input: InputLine
    route: LineRoute | None = None


@dataclass(frozen=True, slots=True)
class KeptCall:
    """One call of a line that has ended for good. ``position``: its place among the line's calls; a panel's aggregator is behind the
    candidates."""

    number: int
    """The line's, in the input file."""
    position: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class LineResult:
    """How one line ended: one line of the output or of the error file. Exactly one of ``body`` and ``error`` is there."""

    number: int
    request_id: str
    status: int
    """Of HTTP, as the same request alone would have had it; 0 where the line was not run (expired, cancelled, budget)."""
    body: Mapping[str, Any] | None = None
    """The answer, in the shape of the batch's endpoint."""
    error: Mapping[str, Any] | None = None
    """``{"code", "message", …}``."""
