"""What is declared about an expert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Backend(StrEnum):
    """How an expert is run."""

    EMBEDDED = "embedded"
    """In the service's own process (transformers)."""
    OPENAI = "openai"
    """An OpenAI-compatible server (vLLM above all), called directly."""
    LITELLM = "litellm"
    """Any other provider, through LiteLLM."""


class Capability(StrEnum):
    """What a request can need beyond text in, text out."""

    TOOLS = "tools"
    VISION = "vision"
    JSON_SCHEMA = "json_schema"
    LOGPROBS = "logprobs"
    MULTIPLE_CHOICES = "multiple_choices"
    """``n`` greater than one."""


class ExpertRole(StrEnum):
    """What the router may use an expert for."""

    CANDIDATE = "candidate"
    AGGREGATOR = "aggregator"


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    prompt: float = 0.0
    completion: float = 0.0


@dataclass(frozen=True, slots=True)
class ExpertCard:
    """One expert as declared by its steward. Immutable; a change makes a new card with a higher ``version``."""

    id: str
    backend: Backend
    model: str
    """What the backend calls it: a folder (embedded), a served model name (openai), ``provider/model`` (litellm)."""
    description: str = ""
    base_url: str | None = None
    """Of an OpenAI-compatible server, with its ``/v1``."""
    api_key: str | None = None
    """A reference such as ``env:OPENAI_API_KEY``; never the secret itself."""
    adapter_of: str | None = None
    """For a LoRA adapter in process: the folder of the base model it sits on."""
    context_length: int = 4096
    """Tokens, prompt and completion together."""
    chars_per_token: float = 4.0
    """For estimates only: letters that one token holds on average (1 for byte-level models)."""
    capabilities: frozenset[Capability] = frozenset()
    roles: frozenset[ExpertRole] = frozenset({ExpertRole.CANDIDATE})
    skills: tuple[str, ...] = ()
    """Declared skills: a weak prior until the expert is measured."""
    exemplars: tuple[str, ...] = ()
    """Questions it is meant for; a weak prior like ``skills``."""
    labels: frozenset[str] = frozenset()
    """Access labels: only requests that hold all of them may use this expert."""
    parameters_b: float | None = None
    """Billions of parameters."""
    memory_mb: float | None = None
    price: Price = Price()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Defaults for OpenAI sampling fields that a request leaves out, e.g. ``{"temperature": 0}``."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Sent with every call, over what the caller sent."""
    aggregation_prompt: str = "moa"
    """Which prompt template this expert reads best as an aggregator (``orchestrator/aggregation/prompts.py``)."""
    max_in_flight: int = 32
    """Calls at once; more wait."""
    queue_timeout_s: float = 10.0
    """Longest wait for a place among ``max_in_flight``."""
    timeout_s: float = 120.0
    """Longest time for one call."""
    enabled: bool = True
    version: int = 1


class HealthState(StrEnum):
    """The circuit of one expert."""

    CLOSED = "closed"
    """Healthy: calls go through."""
    OPEN = "open"
    """Failing: no call until the cool-down is over."""
    HALF_OPEN = "half_open"
    """Cool-down over: one trial call decides."""
