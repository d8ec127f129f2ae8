"""A chat request on the wire. Validates what OpenAI defines; every field it does not know is passed on to the expert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from api.schemas.validation import validate
from domain.adjustments import MAX_BOOST, MAX_PRICE_WEIGHT
from domain.budget import Budget
from domain.chat import NO_OPTIONS, ChatRequest, RequestOptions
from domain.effort import EffortName
from domain.errors import InvalidRequest
from domain.routing import PickKind
from domain.strategy import AggregatorName, ModeName

_OWN_FIELDS = frozenset({"model", "messages", "stream", "stream_options", "consilium"})
"""Fields that are ours to act on; everything else goes to the expert as it came, of ``stream_options`` too."""


MAX_MESSAGES = 4096
"""Messages of one request: twice what OpenAI takes. Each of them costs time in every step up to the expert."""
MAX_PARTS = 8192
"""Content parts and tool calls of one request, over all its messages: two for each, when all have some."""
MAX_TOOLS = 1024
"""Tools of one request, and calls of tools in one message: eight times what OpenAI takes; a model reads them all."""
MAX_STOPS = 128
"""Stop strings: OpenAI takes 4, and experts look for each of them at every token."""
MAX_NAMES = 1024
"""Experts that ``allow``, ``deny`` or ``boost`` names: as many as the largest registry that routing is measured with."""
MAX_ROUTER_OPTIONS = 64
"""Options of a router; none has half as many."""
MAX_BIASES = 16_384
"""Tokens of ``logit_bias``: OpenAI takes 1,024, vocabularies have ten times as many as this."""

# Of a list the first wrong item ends the check (``fail_fast``): the caller is shown one, and millions would be collected.


class _Passing(BaseModel):
    """Strict about the types of known fields, open to unknown ones."""

    model_config = ConfigDict(strict=True, extra="allow")


class ImageUrl(_Passing):
    url: str


class ContentPart(_Passing):
    type: str
    text: str | None = Field(default=None, validate_default=True)
    image_url: ImageUrl | None = Field(default=None, validate_default=True)

    @field_validator("text", "image_url")
    @classmethod
    def _there(cls, value: object, info: ValidationInfo) -> object:
        if value is None and info.data.get("type") == info.field_name:
            raise ValueError(f"a part of type '{info.field_name}' needs it")
        return value


class ToolCallFunction(_Passing):
    name: str
    arguments: str


class ToolCall(_Passing):
    id: str
    type: str = "function"
    function: ToolCallFunction | None = None


class Message(_Passing):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_call_id: str | None = Field(default=None, validate_default=True)
    content: str | Annotated[list[ContentPart], Field(max_length=MAX_PARTS, fail_fast=True)] | None = Field(
        default=None, validate_default=True
    )

    @field_validator("tool_call_id")
    @classmethod
    def _answers_a_call(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("role") == "tool":
            raise ValueError("a message of role 'tool' needs the id of the call that it answers")
        return value

    @field_validator("content")
    @classmethod
    def _says_something(cls, value: object, info: ValidationInfo) -> object:
        if value is None and info.data.get("role") not in {"assistant", None}:
            raise ValueError("must be a string or a list of parts, not null")
        return value


class StreamOptions(_Passing):
    include_usage: bool | None = None


class FunctionDefinition(_Passing):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Passing):
    type: str
    function: FunctionDefinition | None = Field(default=None, validate_default=True)

    @field_validator("function")
    @classmethod
    def _described(cls, value: object, info: ValidationInfo) -> object:
        if value is None and info.data.get("type") == "function":
            raise ValueError("a tool of type 'function' needs it: an object with a name")
        return value


class JsonSchema(_Passing):
    name: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(_Passing):
    type: str
    json_schema: JsonSchema | None = Field(default=None, validate_default=True)

    @field_validator("json_schema")
    @classmethod
    def _described(cls, value: object, info: ValidationInfo) -> object:
        if value is None and info.data.get("type") == "json_schema":
            raise ValueError("a response_format of type 'json_schema' needs it: an object with a name and a schema")
        return value


class Options(BaseModel):
    """The extra body object ``consilium``: how this one request is to be routed and answered."""

    model_config = ConfigDict(strict=True, extra="forbid")

    router: str | None = None
    router_options: Annotated[dict[str, Any], Field(max_length=MAX_ROUTER_OPTIONS)] | None = None
    k: Annotated[int, Field(ge=1)] | None = None
    pick: PickKind | None = None
    mode: ModeName | None = None
    mode_options: Annotated[dict[str, Any], Field(max_length=MAX_ROUTER_OPTIONS)] | None = None
    aggregator: AggregatorName | None = None
    aggregator_expert: str | None = None
    quorum: Annotated[int, Field(ge=1)] | None = None
    candidate_timeout_s: Annotated[float, Field(gt=0)] | None = None
    seed: int | None = None
    allow: Annotated[list[str], Field(max_length=MAX_NAMES, fail_fast=True)] | None = None
    deny: Annotated[list[str], Field(max_length=MAX_NAMES, fail_fast=True)] | None = None
    boost: Annotated[dict[str, Annotated[float, Field(ge=-MAX_BOOST, le=MAX_BOOST)]], Field(max_length=MAX_NAMES)] | None = None
    price_weight: Annotated[float, Field(ge=0, le=MAX_PRICE_WEIGHT)] | None = None
    load_weight: Annotated[float, Field(ge=0, le=1)] | None = None
    session_weight: Annotated[float, Field(ge=0, le=1)] | None = None
    max_calls: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_sequential_tokens: Annotated[int, Field(ge=1)] | None = None
    max_price: Annotated[float, Field(gt=0)] | None = None
    effort: EffortName | None = None
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    explain: bool | None = None

    def to_domain(self, *, explain: bool) -> RequestOptions:
        return RequestOptions(
            router=self.router,
            router_options=self.router_options,
            k=self.k,
            pick=self.pick,
            mode=self.mode,
            mode_options=self.mode_options,
            aggregator=self.aggregator,
            aggregator_expert=self.aggregator_expert,
            quorum=self.quorum,
            candidate_timeout_s=self.candidate_timeout_s,
            seed=self.seed,
            allow=None if self.allow is None else tuple(self.allow),
            deny=tuple(self.deny or ()),
            boost=self.boost,
            price_weight=self.price_weight,
            load_weight=self.load_weight,
            session_weight=self.session_weight,
            max_calls=self.max_calls,
            budget=self._budget(),
            effort=self.effort,
            timeout_s=self.timeout_s,
            explain=bool(self.explain) or explain,
        )

    def _budget(self) -> Budget | None:
        budget = Budget(self.max_tokens, self.max_sequential_tokens, self.max_price)
        return budget if budget.is_bounded else None


class Sampling(_Passing):
    """OpenAI's fields that chat and plain completions share."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS, fail_fast=True)] | None = None
    seed: int | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    consilium: Options | None = None


class ChatBody(Sampling):
    """``POST /v1/chat/completions`` and ``POST /v1/route``."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    reasoning_effort: str | None = None
    metadata: dict[str, Any] | None = None


_EXPLAINED = RequestOptions(explain=True)

BodyT = TypeVar("BodyT", bound=Sampling)


def validated(model: type[BodyT], payload: Mapping[str, Any]) -> BodyT:
    """*payload* as *model*, after what pydantic would look at item by item. Raises ``InvalidRequest`` that names the field."""
    if "model" not in payload:
        raise InvalidRequest("model is missing: 'auto' lets the service choose, GET /v1/models lists every name", param="model")
    biases, messages = payload.get("logit_bias"), payload.get("messages")
    if isinstance(biases, dict) and len(biases) > MAX_BIASES:
        raise InvalidRequest(f"logit_bias has {len(biases)} tokens, at most {MAX_BIASES} are taken", param="logit_bias")
    if isinstance(messages, list) and (num_parts := sum(map(_num_parts, messages[: MAX_MESSAGES + 1]))) > MAX_PARTS:
        raise InvalidRequest(f"messages have {num_parts} content parts and tool calls, at most {MAX_PARTS} are taken", param="messages")
    return validate(model, payload)


def _num_parts(message: object) -> int:
    given = (message.get("content"), message.get("tool_calls")) if isinstance(message, dict) else ()
    return sum(len(parts) for parts in given if isinstance(parts, list))


def parse_chat(payload: Mapping[str, Any], *, request_id: str, session_id: str | None = None, explain: bool = False) -> ChatRequest:
    """*payload* as a ``ChatRequest``. Raises ``InvalidRequest`` that names the field.

    Values are passed on exactly as they came; a null stands for "not given". *explain* is what the header asked for.
    """
    body = validated(ChatBody, payload)
    params = {key: value for key, value in payload.items() if key not in _OWN_FIELDS and value is not None}
    if body.stream and (others := {key: value for key, value in (payload.get("stream_options") or {}).items() if key != "include_usage"}):
        params["stream_options"] = others
    return ChatRequest(
        id=request_id,
        model=body.model,
        messages=tuple(payload["messages"]),
        params=params,
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        options=body.consilium.to_domain(explain=explain) if body.consilium is not None else _EXPLAINED if explain else NO_OPTIONS,
        session_id=session_id,
    )
