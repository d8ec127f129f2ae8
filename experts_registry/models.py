"""Cards and strategies as people write them: the fields of the manifest and the bodies of the admin REST.

Strict: a wrong type, an unknown key or a value that is not one of the known ones is an error, never a guess. Field names,
meanings and defaults are those of ``domain.experts.ExpertCard`` and ``domain.strategy.Strategy``; a test compares them.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationInfo, field_validator

from domain.experts import Backend, Capability, ExpertCard, ExpertRole, Price
from domain.routing import PICK_KINDS, PickKind, PickRule
from domain.strategy import AGGREGATOR_NAMES, AggregatorName, Strategy
from experts_registry.fields import (
    distinct,
    environment_reference,
    expert_id,
    http_url,
    identifier,
    no_request_fields,
    one_of,
    storable,
)

Text = Annotated[str, AfterValidator(storable)]
Name = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(storable)]
Names = Annotated[list[Name], AfterValidator(distinct)]
JsonObject = dict[str, JsonValue]
ExpertId = Annotated[str, Field(max_length=64), AfterValidator(expert_id)]
StrategyId = Annotated[str, Field(max_length=64), AfterValidator(identifier)]

_MAX_INTEGER = 2**31 - 1
_CARD = ExpertCard(id="defaults", backend=Backend.EMBEDDED, model="defaults")
_STRATEGY = Strategy(id="defaults")


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class PriceModel(_Model):
    """US dollars per million tokens."""

    prompt: float = Field(default=0.0, ge=0)
    completion: float = Field(default=0.0, ge=0)


class ExpertModel(_Model):
    """One expert as declared by its steward."""

    id: ExpertId
    """Lower-case letters, digits, dots, dashes and underscores. Also the name to ask for as ``model``."""
    version: int | None = None
    """Given by the registry; what is written here is not stored."""
    backend: Annotated[Backend, BeforeValidator(one_of(Backend))]
    """``embedded``: in the service's own process. ``openai``: an OpenAI-compatible server. ``litellm``: any other provider."""
    model: Annotated[str, Field(min_length=1), AfterValidator(storable)]
    """What the backend calls it: a folder (embedded), a served model name (openai), ``provider/model`` (litellm)."""
    description: Text = _CARD.description
    base_url: Text | None = Field(default=_CARD.base_url, validate_default=True)
    """Of an OpenAI-compatible server, with its ``/v1``."""
    api_key: Annotated[str, AfterValidator(environment_reference)] | None = _CARD.api_key
    """A reference to an environment variable, ``env:NAME``; never the key itself."""
    adapter_of: Text | None = Field(default=_CARD.adapter_of, validate_default=True)
    """For an embedded LoRA adapter: the folder of the base model that it sits on."""
    context_length: int = Field(default=_CARD.context_length, ge=1, le=_MAX_INTEGER)
    """Tokens, prompt and completion together."""
    chars_per_token: float = Field(default=_CARD.chars_per_token, gt=0, le=64)
    """How many letters one token holds, to estimate whether a conversation fits; 1 for a byte-level model."""
    capabilities: Annotated[list[Annotated[Capability, BeforeValidator(one_of(Capability))]], AfterValidator(distinct)] = []
    """What it can do beyond text in, text out."""
    roles: Annotated[list[Annotated[ExpertRole, BeforeValidator(one_of(ExpertRole))]], Field(min_length=1), AfterValidator(distinct)] = (
        sorted(_CARD.roles)
    )
    """What the router may use it for."""
    skills: Names = list(_CARD.skills)
    """Declared skills: a weak prior until the expert is measured. In a manifest each one has to be known or listed there."""
    exemplars: list[Text] = list(_CARD.exemplars)
    """Questions it is meant for; a weak prior like the skills."""
    labels: Names = sorted(_CARD.labels)
    """Access labels: only requests that hold all of them may use this expert."""
    parameters_b: float | None = Field(default=_CARD.parameters_b, gt=0)
    """Billions of parameters."""
    memory_mb: float | None = Field(default=_CARD.memory_mb, ge=0)
    """What it needs when loaded."""
    price: PriceModel = PriceModel(prompt=_CARD.price.prompt, completion=_CARD.price.completion)
    sampling: Annotated[JsonObject, AfterValidator(no_request_fields)] = dict(_CARD.sampling)
    """Defaults for OpenAI sampling fields that a request leaves out, e.g. ``temperature: 0``."""
    extra_body: Annotated[JsonObject, AfterValidator(no_request_fields)] = dict(_CARD.extra_body)
    """Sent with every call, over what the caller sent."""
    aggregation_prompt: Annotated[str, Field(max_length=64), AfterValidator(identifier)] = _CARD.aggregation_prompt
    """Which prompt template this expert reads best as an aggregator."""
    max_in_flight: int = Field(default=_CARD.max_in_flight, ge=1, le=100_000)
    """Calls at once; more wait."""
    queue_timeout_s: float = Field(default=_CARD.queue_timeout_s, ge=0, le=86_400)
    """Longest wait for a place among ``max_in_flight``."""
    timeout_s: float = Field(default=_CARD.timeout_s, gt=0, le=86_400)
    """Longest time for one call."""
    enabled: bool = _CARD.enabled

    @field_validator("base_url")
    @classmethod
    def _base_url_fits_backend(cls, value: str | None, info: ValidationInfo) -> str | None:
        backend = info.data.get("backend")
        if value is None:
            if backend is Backend.OPENAI:
                raise ValueError("is needed for backend 'openai', e.g. http://127.0.0.1:8000/v1")
            return None
        if backend is Backend.EMBEDDED:
            raise ValueError("makes no sense for backend 'embedded', which calls no server: leave it out")
        return http_url(value)

    @field_validator("adapter_of")
    @classmethod
    def _adapter_fits_backend(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("backend") not in {Backend.EMBEDDED, None}:
            raise ValueError("is only for backend 'embedded': a server loads its adapters itself")
        return value

    @classmethod
    def from_card(cls, card: ExpertCard) -> ExpertModel:
        """The card as people write it; sets come out sorted. Not checked: what is stored can always be shown."""
        return cls.model_construct(
            id=card.id,
            version=card.version,
            backend=card.backend,
            model=card.model,
            description=card.description,
            base_url=card.base_url,
            api_key=card.api_key,
            adapter_of=card.adapter_of,
            context_length=card.context_length,
            chars_per_token=card.chars_per_token,
            capabilities=sorted(card.capabilities),
            roles=sorted(card.roles),
            skills=list(card.skills),
            exemplars=list(card.exemplars),
            labels=sorted(card.labels),
            parameters_b=card.parameters_b,
            memory_mb=card.memory_mb,
            price=PriceModel(prompt=card.price.prompt, completion=card.price.completion),
            sampling=dict(card.sampling),
            extra_body=dict(card.extra_body),
            aggregation_prompt=card.aggregation_prompt,
            max_in_flight=card.max_in_flight,
            queue_timeout_s=card.queue_timeout_s,
            timeout_s=card.timeout_s,
            enabled=card.enabled,
        )

    def to_card(self) -> ExpertCard:
        """The card that this declares; version 1 where none is written."""
        return ExpertCard(
            id=self.id,
            version=self.version or 1,
            backend=self.backend,
            model=self.model,
            description=self.description,
            base_url=self.base_url,
            api_key=self.api_key,
            adapter_of=self.adapter_of,
            context_length=self.context_length,
            chars_per_token=self.chars_per_token,
            capabilities=frozenset(self.capabilities),
            roles=frozenset(self.roles),
            skills=tuple(self.skills),
            exemplars=tuple(self.exemplars),
            labels=frozenset(self.labels),
            parameters_b=self.parameters_b,
            memory_mb=self.memory_mb,
            price=Price(self.price.prompt, self.price.completion),
            sampling=dict(self.sampling),
            extra_body=dict(self.extra_body),
            aggregation_prompt=self.aggregation_prompt,
            max_in_flight=self.max_in_flight,
            queue_timeout_s=self.queue_timeout_s,
            timeout_s=self.timeout_s,
            enabled=self.enabled,
        )


class PickModel(_Model):
    """How many experts to take from the scores."""

    kind: Annotated[PickKind, BeforeValidator(one_of(PICK_KINDS))] = "dynamic"
    """``top_k``: the k best. ``sample``: k draws with replacement. ``dynamic``: as few as reach the threshold, at most k."""
    k: int = Field(default=_STRATEGY.pick.k, ge=1, le=64)
    threshold: float = Field(default=_STRATEGY.pick.threshold, gt=0, le=1)
    """Share of the total score that a dynamic set must reach."""


class StrategyModel(_Model):
    """A named recipe, asked for as ``consilium/<id>``."""

    id: StrategyId
    version: int | None = None
    """Given by the registry; what is written here is not stored."""
    description: Text = _STRATEGY.description
    router: Annotated[str, Field(max_length=64), AfterValidator(identifier)] = _STRATEGY.router
    router_options: JsonObject = dict(_STRATEGY.router_options)
    """Settings of that router."""
    pick: PickModel = PickModel()
    aggregator: Annotated[AggregatorName, BeforeValidator(one_of(AGGREGATOR_NAMES))] = "fuse"
    """What makes one answer of several candidates."""
    aggregator_expert: ExpertId | None = _STRATEGY.aggregator_expert
    """A fixed fusing expert; without it the measured aggregator profile chooses."""
    fallback_expert: ExpertId | None = _STRATEGY.fallback_expert
    """Where a query goes that is like nothing known; without it such a query is refused."""
    max_calls: int = Field(default=_STRATEGY.max_calls, ge=1, le=1000)
    """Hard cap on calls for one request: the router's own, the candidates' and the aggregator's."""
    timeout_s: float = Field(default=_STRATEGY.timeout_s, gt=0, le=86_400)
    enabled: bool = _STRATEGY.enabled

    @classmethod
    def from_strategy(cls, strategy: Strategy) -> StrategyModel:
        """The strategy as people write it. Not checked: what is stored can always be shown."""
        return cls.model_construct(
            id=strategy.id,
            version=strategy.version,
            description=strategy.description,
            router=strategy.router,
            router_options=dict(strategy.router_options),
            pick=PickModel.model_construct(kind=cast(Any, strategy.pick.kind), k=strategy.pick.k, threshold=strategy.pick.threshold),
            aggregator=cast(Any, strategy.aggregator),  # any text when not checked
            aggregator_expert=strategy.aggregator_expert,
            fallback_expert=strategy.fallback_expert,
            max_calls=strategy.max_calls,
            timeout_s=strategy.timeout_s,
            enabled=strategy.enabled,
        )

    def to_strategy(self) -> Strategy:
        """The strategy that this declares; version 1 where none is written."""
        return Strategy(
            id=self.id,
            version=self.version or 1,
            description=self.description,
            router=self.router,
            router_options=dict(self.router_options),
            pick=PickRule(kind=self.pick.kind, k=self.pick.k, threshold=self.pick.threshold),
            aggregator=self.aggregator,
            aggregator_expert=self.aggregator_expert,
            fallback_expert=self.fallback_expert,
            max_calls=self.max_calls,
            timeout_s=self.timeout_s,
            enabled=self.enabled,
        )


class SkillModel(_Model):
    """A skill as the admin REST reads and writes it."""

    name: Name
    description: Text = ""
