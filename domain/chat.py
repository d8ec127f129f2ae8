"""A request as the pipeline sees it, and the pieces of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from domain.access import PUBLIC, Access
from domain.budget import Budget
from domain.effort import Effort
from domain.made_often import made_often
from domain.trace_context import TraceContext

if TYPE_CHECKING:
    from domain.trace import Trace

Session = tuple[str | None, str]
"""A caller's stored key (None: without one) and what it calls its session: two callers may choose the same name."""
Message = Mapping[str, Any]
"""One chat message in OpenAI's shape; unknown keys are kept and passed on."""


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """The extra body object ``consilium``: what a caller may choose for one request. ``None`` means the strategy's."""

    router: str | None = None
    k: int | None = None
    pick: str | None = None
    """``top_k``, ``sample``, ``dynamic`` or ``gate``."""
    mode: str | None = None
    mode_options: Mapping[str, Any] | None = None
    """Over the strategy's, where that has the same mode."""
    aggregator: str | None = None
    aggregator_expert: str | None = None
    """Which expert reads the others' answers, instead of the one that the profile chooses."""
    quorum: int | None = None
    candidate_timeout_s: float | None = None
    seed: int | None = None
    allow: tuple[str, ...] | None = None
    """Only these experts."""
    deny: tuple[str, ...] = ()
    boost: Mapping[str, float] | None = None
    """Expert id to what is added to its score; of an expert that the strategy boosts too, instead of that."""
    price_weight: float | None = None
    load_weight: float | None = None
    session_weight: float | None = None
    router_options: Mapping[str, Any] | None = None
    """Options of the router, over the strategy's where that names the same router."""
    max_calls: int | None = None
    budget: Budget | None = None
    """Within the strategy's."""
    effort: str | None = None
    """How much the request is worth, one of ``domain.effort.EFFORT_NAMES``."""
    timeout_s: float | None = None
    explain: bool = False


NO_OPTIONS = RequestOptions()
"""Of a request that has no wishes of its own, as most have none: whoever finds this very object need not look at each."""


@made_often
@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A validated chat request."""

    id: str
    model: str
    """As asked: ``auto``, ``consilium/<strategy>`` or an expert id."""
    messages: tuple[Message, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    """Every other OpenAI field (temperature, tools, response_format, unknown ones), passed on to experts."""
    stream: bool = False
    include_usage: bool = False
    """``stream_options.include_usage``."""
    options: RequestOptions = NO_OPTIONS
    effort: Effort | None = None
    """The level that its options and its strategy lead to; None before that is known, and where there is none."""
    session_id: str | None = None
    access: Access = PUBLIC
    """What the caller's key may see and use."""
    key_id: str | None = None
    """The stored API key that the request came with, to account for it; None without one."""
    context: TraceContext | None = None
    """The request's span in a distributed trace, where spans are exported."""
    on_trace: Callable[[Trace], None] | None = field(default=None, compare=False, repr=False)
    """Hears the finished trace, once; must not raise."""

    @property
    def session(self) -> Session | None:
        """None for a request outside of any session."""
        return (self.key_id, self.session_id) if self.session_id else None


def text_of(message: Message) -> str:
    """The text of one message; of content parts, the text parts joined by newlines."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping) and part.get("type") == "text")
    return ""


def user_turns(messages: Sequence[Message]) -> tuple[str, ...]:
    """The texts of the user's messages, oldest first, empty ones dropped."""
    return tuple(text for m in messages if m.get("role") == "user" and (text := text_of(m).strip()))


@made_often
@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or several calls."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else experts tell in their usage (``prompt_tokens_details``, ``completion_tokens_details``), as far as they tell it."""

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        details = _added(self.details, other.details)
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens, details)


def _added(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both with their numbers added up, those of inner objects too; of anything else *second*'s."""
    result = dict(first)
    for name, value in second.items():
        known = first.get(name)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            result[name] = _added(known, value)
        elif _is_number(known) and _is_number(value):
            result[name] = known + value
        else:
            result[name] = value
    return result


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@made_often
@dataclass(frozen=True, slots=True)
class Choice:
    """One finished choice. ``message`` is OpenAI's assistant message; reasoning, if any, under ``reasoning_content``."""

    message: Message
    index: int = 0
    finish_reason: str | None = "stop"
    logprobs: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Other fields of the expert's choice (``stop_reason``, ``content_filter_results``)."""

    @property
    def text(self) -> str:
        return text_of(self.message)


@made_often
@dataclass(frozen=True, slots=True)
class ChoiceDelta:
    """A piece of one choice while streaming. ``delta`` is OpenAI's delta object."""

    delta: Mapping[str, Any]
    index: int = 0
    finish_reason: str | None = None
    logprobs: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """As of ``Choice``."""


@made_often
@dataclass(frozen=True, slots=True)
class Chunk:
    """One event of an expert's stream. ``usage`` comes once, at the end, when the expert tells it."""

    choices: tuple[ChoiceDelta, ...] = ()
    usage: Usage | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Other top-level fields of the expert's chunk (``system_fingerprint``, ``service_tier``)."""
