"""What the data plane answers, for ``/openapi.json``: the endpoints write these shapes by hand, tests compare them.

A shape that is *open* may hold more than is named here: what an expert tells beyond OpenAI's fields comes back as well.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Told(BaseModel):
    """All that an answer holds."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class OpenTold(BaseModel):
    """What an answer holds at least."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)


# --- how an answer came about ----------------------------------------------------------------------------------------


class UsageTold(OpenTold):
    """Tokens, summed over all calls of the request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class MatchedSkill(Told):
    skill: str
    similarity: float
    weight: float
    """How much it counts."""


class ConsideredTold(Told):
    expert: str
    score: float
    selected: bool
    why: str


class Decided(Told):
    router: str | None
    reason: str
    selected: list[str]
    """Best first."""
    skills: list[MatchedSkill]
    category: str | None
    fallback: bool
    """Whether the query was like nothing known, and went to the strategy's fallback expert."""
    considered: list[ConsideredTold]
    detail: dict[str, Any]
    """What else the router has to say."""


class CallTold(Told):
    expert: str
    role: str
    status: str
    error: str | None
    started_ms: float | None
    """After the request's beginning; null in what was kept before this was."""
    latency_ms: float
    usage: UsageTold
    stage: int | None = None
    """Of a mode with several stages: the one in which it was asked."""
    confidence: float | None = None
    """How sure the answer is, where something judged it."""
    note: str | None = None
    """What became of the answer."""


class TimingsTold(Told):
    """Milliseconds."""

    route: float
    experts: float
    aggregate: float
    total: float
    overhead: float
    """Total minus the time spent waiting for experts."""
    first_token: float | None
    """Of a stream."""


class Explained(Decided):
    """What happened to one request."""

    request_id: str
    strategy: str | None
    calls: list[CallTold]
    aggregator: str | None
    aggregator_reason: str | None
    answered_by: str | None
    panel_changed_answer: bool | None
    """Whether the answer says something else than the best-scored of several candidates."""
    sequential_tokens: int
    """Answer tokens that were waited for one after the other; of calls that ran at once the longest counts."""
    timings_ms: TimingsTold


class RouteTimings(Told):
    """Milliseconds."""

    route: float


class RoutingDecisionTold(Decided):
    """Who would be asked."""

    object: Literal["consilium.routing_decision"]
    request_id: str
    model: str
    strategy: str
    timings_ms: RouteTimings


# --- completions -----------------------------------------------------------------------------------------------------


class FunctionTold(OpenTold):
    name: str
    arguments: str
    """JSON, as the model wrote it."""


class ToolCallTold(OpenTold):
    id: str
    type: str
    function: FunctionTold


class MessageTold(OpenTold):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    annotations: list[Any]
    tool_calls: list[ToolCallTold] | None = None
    reasoning_content: str | None = None
    """What the model thought before it answered."""


class ChoiceTold(OpenTold):
    index: int
    message: MessageTold
    logprobs: dict[str, Any] | None
    finish_reason: str | None


class ChatCompletion(OpenTold):
    """OpenAI's chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    """The name that was asked for."""
    choices: list[ChoiceTold]
    usage: UsageTold
    consilium: Explained | None = None
    """Only where it was asked for (`explain`)."""


class DeltaTold(OpenTold):
    role: Literal["assistant"] | None = None
    content: str | None = None


class PieceTold(OpenTold):
    index: int
    delta: DeltaTold
    logprobs: dict[str, Any] | None
    finish_reason: str | None


class ChatCompletionChunk(OpenTold):
    """What stands behind `data:` in each event of a stream but the last, which is `[DONE]`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[PieceTold]
    usage: UsageTold | None = None
    """Only with `stream_options.include_usage`: of the last chunk, which has no choices; null before."""
    consilium: Explained | None = None


class TextChoiceTold(OpenTold):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: str | None


class TextCompletion(OpenTold):
    """OpenAI's plain completion, whole or a chunk of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoiceTold]
    usage: UsageTold | None = None
    consilium: Explained | None = None


# --- embeddings and models -------------------------------------------------------------------------------------------


class EmbeddingTold(Told):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    """Numbers, or with `encoding_format: base64` their float32 bytes, least significant byte first."""


class EmbeddingUsage(Told):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Told):
    object: Literal["list"]
    data: list[EmbeddingTold]
    model: str
    usage: EmbeddingUsage


class PickTold(Told):
    kind: str
    k: int


class StrategyAbout(Told):
    kind: Literal["strategy"]
    strategy: str
    description: str
    router: str
    pick: PickTold
    aggregator: str


class ExpertAbout(Told):
    kind: Literal["expert"]
    description: str
    roles: list[str]
    backend: str
    skills: list[str]
    capabilities: list[str]
    context_length: int
    health: str


class ModelTold(Told):
    """A name that a request may use as `model`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    consilium: StrategyAbout | ExpertAbout
    """What kind of name it is."""


class ModelList(Told):
    object: Literal["list"]
    data: list[ModelTold]


# --- files and batches -----------------------------------------------------------------------------------------------


class FileTold(Told):
    """OpenAI's file object."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]
    status_details: None


class FileList(Told):
    object: Literal["list"]
    data: list[FileTold]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(Told):
    id: str
    object: Literal["file"]
    deleted: Literal[True]


class BatchProblem(Told):
    code: str
    message: str
    param: str | None
    line: int | None
    """Of the input, from 1."""


class BatchProblems(Told):
    object: Literal["list"]
    data: list[BatchProblem]


class RequestCounts(Told):
    total: int
    completed: int
    failed: int


class CachedTokens(Told):
    cached_tokens: int


class ReasoningTokens(Told):
    reasoning_tokens: int


class BatchUsage(Told):
    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class BatchAbout(Told):
    strategy: str | None
    max_calls: int | None
    max_tokens: int | None
    num_calls: int
    runner: str


class BatchTold(Told):
    """OpenAI's batch object."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchProblems | None
    input_file_id: str
    completion_window: str
    status: Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    expires_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None
    consilium: BatchAbout


class BatchList(Told):
    object: Literal["list"]
    data: list[BatchTold]
    first_id: str | None
    last_id: str | None
    has_more: bool


# --- feedback and the service itself ---------------------------------------------------------------------------------


class WeighedSkill(Told):
    skill: str
    weight: float


class FeedbackEvent(Told):
    """What somebody said about an answer."""

    id: str
    request_id: str
    trace_id: str | None
    created_at: float
    given: dict[str, Any]
    scores: dict[str, float]
    """Of each expert that it speaks of."""
    expected: dict[str, float]
    """The same, as the router had expected it."""
    answered_by: str | None
    strategy: str | None
    router: str | None
    skills: list[WeighedSkill]
    category: str | None
    resets: str | None
    """The expert with which it begins anew."""
    status: Literal["counts", "rolled_back"]
    rolled_back_at: float | None


class FeedbackGiven(FeedbackEvent):
    object: Literal["consilium.feedback"]


class Alive(Told):
    status: Literal["ok"]


class Readied(Told):
    status: Literal["starting", "ready", "degraded", "draining"]
    parts: dict[str, str]
    """How each part stands."""
    missing: dict[str, str]
    num_experts: int
