"""What is declared about an expert."""

from __future__ import annotations

import hashlib
import json
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
    VLLM = "vllm"
    """A vLLM server that the service starts and stops itself."""


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
    HELPER = "helper"
    """Plans, or judges: asked only where a strategy names it, never for an answer of its own."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    prompt: float = 0.0
    completion: float = 0.0


SERVING_DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")
"""What vLLM can keep weights in."""


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """How the service starts the vLLM server of a managed expert. Adapters live on their base's server, and take its options."""

    dtype: str = "auto"
    """What weights and computations are in; ``auto`` is what the model's configuration says."""
    tensor_parallel: int = 1
    """Parts that each layer is split into, one a GPU."""
    gpus: tuple[str, ...] = ()
    """Its GPUs, as indices or UUIDs. None: it runs on the processors."""
    gpu_memory_utilization: float | None = None
    """Share of each GPU's memory that it takes; None: as much as ``memory_mb`` says, or 0.9 when that says nothing."""
    kv_cache_gb: int = 1
    """GB of memory for keys and values, for a server on the processors."""
    cpu_threads: int | None = None
    """Threads of a server on the processors; None leaves it to the libraries."""
    max_lora_rank: int | None = None
    """Of a base: the largest rank that its server is to take. Of an adapter: its rank. None: as the adapters' folders say."""
    max_loras: int = 8
    """Adapters that one step of the server may mix."""
    enforce_eager: bool | None = None
    """Without compiled graphs. None: on processors, where a start is much shorter without; not on GPUs."""
    sleep_mode: bool = True
    """Whether a server on GPUs can give its memory back while it sleeps."""
    extra_arguments: tuple[str, ...] = ()
    """Passed on to vLLM as they are."""
    pinned: bool = False
    """Loaded from the start and never evicted."""
    asleep_mb: float | None = None
    """What a server on GPUs still holds asleep; None: it is stopped, never put to sleep."""
    load_s: float | None = None
    """Seconds that a load takes, until it is measured; None: as the service assumes."""


@dataclass(frozen=True, slots=True)
class ExpertCard:
    """One expert as declared by its steward. Immutable; a change makes a new card with a higher ``version``."""

    id: str
    backend: Backend
    model: str
    """What the backend calls it: a folder (embedded), a served model name (openai), ``provider/model`` (litellm), a folder or an
    id on the hub (vllm)."""
    description: str = ""
    base_url: str | None = None
    """Of an OpenAI-compatible server, with its ``/v1``."""
    api_key: str | None = None
    """A reference such as ``env:OPENAI_API_KEY``; never the secret itself."""
    adapter_of: str | None = None
    """For a LoRA adapter, embedded or on a managed server: the folder (or the id on the hub) of the base model it sits on."""
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
    """What it needs when loaded; of a managed expert what its whole server needs."""
    serving: ServingOptions = ServingOptions()
    price: Price = Price()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Defaults for OpenAI sampling fields that a request leaves out, e.g. ``{"temperature": 0}``."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Sent with every call, over what the caller sent."""
    aggregation_prompt: str = "moa"
    """Which prompt template this expert reads best as an aggregator (``orchestrator/aggregation/prompts.py``)."""
    max_in_flight: int = 32
    """Calls at once; more wait."""
    max_queued: int = 256
    """Calls that may wait for a place among ``max_in_flight``; one more is refused at once. Beyond it waiting is hopeless."""
    queue_timeout_s: float = 10.0
    """Longest wait for a place among ``max_in_flight``."""
    timeout_s: float = 120.0
    """Longest time for one call."""
    first_token_timeout_s: float | None = None
    """Longest wait for the first token of a stream; None: as long as the whole call may take."""
    idle_timeout_s: float = 60.0
    """Longest silence between two pieces of a stream."""
    hedge_after_s: float | None = None
    """Silence after which a call is sent a second time, to whichever of its servers behind the one address is next; None: never."""
    enabled: bool = True
    version: int = 1

    @property
    def fingerprint(self) -> str:
        """Of what its answers depend on as far as the card tells: the model and how it is prompted and sampled. What was measured of an
        expert says nothing of one with another fingerprint.

        Not in it: what an answer costs, who may have it, how long it may take, and where the same model is served.
        """
        content = (self.backend, self.model, self.adapter_of, self.sampling, self.extra_body, self.serving.extra_arguments)
        text = json.dumps(_comparable(content), sort_keys=True)
        return f"{_FINGERPRINT_SCHEME}-{hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=10).hexdigest()}"

    @property
    def aggregator_fingerprint(self) -> str:
        """The same for its answers as an aggregator, which depend on the prompt that it reads candidates in."""
        return f"{self.fingerprint} {self.aggregation_prompt}"


_FINGERPRINT_SCHEME = 1
"""Changes with what a fingerprint is of: then a migration writes stored ones anew."""


def _comparable(value: Any) -> Any:
    """*value* so that what means the same is the same JSON: 0 and 0.0 are one temperature."""
    match value:
        case bool() | str() | None:
            return value
        case int() | float():
            return float(value)
        case Mapping():
            return {str(key): _comparable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_comparable(inner) for inner in value]
        case _:
            return str(value)


class HealthState(StrEnum):
    """The circuit of one expert."""

    CLOSED = "closed"
    """Healthy: calls go through."""
    OPEN = "open"
    """Failing: no call until the cool-down is over."""
    HALF_OPEN = "half_open"
    """Cool-down over: one trial call decides."""
