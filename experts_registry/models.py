"""Cards and strategies as people write them: the fields of the manifest and the bodies of the admin REST.

Strict: a wrong type, an unknown key or a value that is not one of the known ones is an error, never a guess. Field names,
meanings and defaults are those of ``domain.experts.ExpertCard`` and ``domain.strategy.Strategy``; a test compares them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationInfo, field_validator

from domain.adjustments import AS_SCORED, MAX_BOOST, MAX_PRICE_WEIGHT, RoutingAdjustments
from domain.budget import Budget
from domain.effort import EFFORT_NAMES, EffortLevel, EffortName, EffortRule
from domain.experts import SERVING_DTYPES, Backend, Capability, ExpertCard, ExpertRole, Price, ServingOptions
from domain.routing import PICK_KINDS, PickKind, PickRule
from domain.strategy import AGGREGATOR_NAMES, MODE_NAMES, AggregatorName, ModeName, Strategy
from experts_registry.fields import (
    distinct,
    environment_reference,
    expert_id,
    gpu,
    http_url,
    identifier,
    model_place,
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
_SERVING = _CARD.serving
_STRATEGY = Strategy(id="defaults")


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class PriceModel(_Model):
    """US dollars per million tokens."""

    prompt: float = Field(default=0.0, ge=0)
    completion: float = Field(default=0.0, ge=0)


class ServingModel(_Model):
    """How the service starts the vLLM server of an expert with backend ``vllm``."""

    dtype: Annotated[str, BeforeValidator(one_of(SERVING_DTYPES))] = _SERVING.dtype
    """What weights and computations are in; ``auto`` is what the model's configuration says."""
    tensor_parallel: int = Field(default=_SERVING.tensor_parallel, ge=1, le=1024)
    """Parts that each layer is split into, one a GPU."""
    gpus: Annotated[list[Annotated[str, AfterValidator(gpu)]], AfterValidator(distinct)] = list(_SERVING.gpus)
    """Its GPUs, as indices or UUIDs, in quotes. None: it runs on the processors."""
    gpu_memory_utilization: float | None = Field(default=_SERVING.gpu_memory_utilization, gt=0, le=1)
    """Share of each GPU's memory that it takes. Left out: as much as ``memory_mb`` says, or 0.9 when that says nothing."""
    kv_cache_gb: int = Field(default=_SERVING.kv_cache_gb, ge=1, le=_MAX_INTEGER)
    """GB of memory for keys and values, for a server on the processors."""
    cpu_threads: int | None = Field(default=_SERVING.cpu_threads, ge=1, le=1024)
    """Threads of a server on the processors; left out, the libraries choose."""
    max_lora_rank: int | None = Field(default=_SERVING.max_lora_rank, ge=1, le=512)
    """Of a base: the largest rank that its server is to take. Of an adapter: its rank. Left out: as the adapters' folders say."""
    max_loras: int = Field(default=_SERVING.max_loras, ge=1, le=1024)
    """Adapters that one step of the server may mix."""
    enforce_eager: bool | None = _SERVING.enforce_eager
    """Without compiled graphs. Left out: on processors, where a start is much shorter without; not on GPUs."""
    sleep_mode: bool = _SERVING.sleep_mode
    """Whether a server on GPUs can give its memory back while it sleeps."""
    extra_arguments: Annotated[list[Text], Field(max_length=64)] = list(_SERVING.extra_arguments)
    """Passed on to vLLM as they are; flag and value are two entries."""
    pinned: bool = _SERVING.pinned
    """Loaded from the start and never evicted."""
    asleep_mb: float | None = Field(default=_SERVING.asleep_mb, ge=0, validate_default=True)
    """What a server on GPUs still holds asleep. Left out: it is stopped, never put to sleep."""
    load_s: float | None = Field(default=_SERVING.load_s, ge=0, le=86_400)
    """Seconds that a load takes, until it is measured. Left out: as the service assumes."""

    @field_validator("gpus")
    @classmethod
    def _gpus_can_be_divided(cls, value: list[str], info: ValidationInfo) -> list[str]:
        parts = info.data.get("tensor_parallel", 1)
        if value and len(value) % parts:
            raise ValueError(f"names {len(value)}, which cannot be divided by tensor_parallel ({parts})")
        return value

    @field_validator("asleep_mb")
    @classmethod
    def _sleep_frees_memory(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and not (info.data.get("gpus", True) and info.data.get("sleep_mode", True)):
            raise ValueError("is only for a server on `gpus` with `sleep_mode`: others keep all their memory while they sleep")
        return value

    @classmethod
    def from_options(cls, options: ServingOptions) -> ServingModel:
        """The options as people write them. Not checked: what is stored can always be shown."""
        values = asdict(options)
        return cls.model_construct(**{**values, "gpus": list(options.gpus), "extra_arguments": list(options.extra_arguments)})

    def to_options(self) -> ServingOptions:
        return ServingOptions(**{**self.model_dump(), "gpus": tuple(self.gpus), "extra_arguments": tuple(self.extra_arguments)})


class ExpertModel(_Model):
    """One expert as declared by its steward."""

    id: ExpertId
    """Lower-case letters, digits, dots, dashes and underscores. Also the name to ask for as ``model``."""
    version: int | None = None
    """Given by the registry; what is written here is not stored."""
    backend: Annotated[Backend, BeforeValidator(one_of(Backend))]
    """``embedded``: in the service's own process. ``openai``: an OpenAI-compatible server. ``litellm``: any other provider.
    ``vllm``: a vLLM server that the service starts and stops itself."""
    model: Annotated[str, Field(min_length=1), AfterValidator(storable)]
    """What the backend calls it: a folder (embedded), a served model name (openai), ``provider/model`` (litellm), a folder's absolute
    path or an id on the hub (vllm)."""
    description: Text = _CARD.description
    base_url: Text | None = Field(default=_CARD.base_url, validate_default=True)
    """Of an OpenAI-compatible server, with its ``/v1``."""
    api_key: Annotated[str, AfterValidator(environment_reference)] | None = _CARD.api_key
    """A reference to an environment variable, ``env:NAME``; never the key itself."""
    adapter_of: Text | None = Field(default=_CARD.adapter_of, validate_default=True)
    """For a LoRA adapter (embedded, vllm): the folder of the base model that it sits on; of vllm, absolute, or an id on the hub."""
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
    """What it needs when loaded; with backend ``vllm`` what its whole server needs."""
    serving: ServingModel = ServingModel()
    """How its server is started; for backend ``vllm`` only."""
    price: PriceModel = PriceModel(prompt=_CARD.price.prompt, completion=_CARD.price.completion)
    sampling: Annotated[JsonObject, AfterValidator(no_request_fields)] = dict(_CARD.sampling)
    """Defaults for OpenAI sampling fields that a request leaves out, e.g. ``temperature: 0``."""
    extra_body: Annotated[JsonObject, AfterValidator(no_request_fields)] = dict(_CARD.extra_body)
    """Sent with every call, over what the caller sent."""
    aggregation_prompt: Annotated[str, Field(max_length=64), AfterValidator(identifier)] = _CARD.aggregation_prompt
    """Which prompt template this expert reads best as an aggregator."""
    max_in_flight: int = Field(default=_CARD.max_in_flight, ge=1, le=100_000)
    """Calls at once; more wait."""
    max_queued: int = Field(default=_CARD.max_queued, ge=0, le=100_000)
    """Calls that may wait for a place among ``max_in_flight``; one more is refused at once."""
    queue_timeout_s: float = Field(default=_CARD.queue_timeout_s, ge=0, le=86_400)
    """Longest wait for a place among ``max_in_flight``."""
    timeout_s: float = Field(default=_CARD.timeout_s, gt=0, le=86_400)
    """Longest time for one call."""
    first_token_timeout_s: float | None = Field(default=_CARD.first_token_timeout_s, gt=0, le=86_400)
    """Longest wait for the first token of a stream. Left out: as long as the whole call may take."""
    idle_timeout_s: float = Field(default=_CARD.idle_timeout_s, gt=0, le=86_400)
    """Longest silence between two pieces of a stream."""
    hedge_after_s: float | None = Field(default=_CARD.hedge_after_s, gt=0, le=86_400, validate_default=True)
    """Silence after which a call is sent a second time: for an address with several servers behind it. Left out: never."""
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
        if backend is Backend.VLLM:
            raise ValueError("makes no sense for backend 'vllm', whose servers get their addresses when they start: leave it out")
        return http_url(value)

    @field_validator("adapter_of")
    @classmethod
    def _adapter_fits_backend(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("backend") not in {Backend.EMBEDDED, Backend.VLLM, None}:
            raise ValueError("is only for the backends 'embedded' and 'vllm': another server loads its adapters itself")
        if value is not None and info.data.get("backend") is Backend.VLLM:
            return model_place(value)
        return value

    @field_validator("model")
    @classmethod
    def _model_fits_backend(cls, value: str, info: ValidationInfo) -> str:
        return model_place(value) if info.data.get("backend") is Backend.VLLM else value

    @field_validator("api_key")
    @classmethod
    def _key_fits_backend(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("backend") is Backend.VLLM:
            raise ValueError("makes no sense for backend 'vllm', whose servers only the service can reach: leave it out")
        return value

    @field_validator("memory_mb")
    @classmethod
    def _a_server_needs_memory(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value == 0 and info.data.get("backend") is Backend.VLLM:
            raise ValueError("must be greater than 0 for backend 'vllm'; leave it out when it is not known")
        return value

    @field_validator("serving")
    @classmethod
    def _serving_fits_backend(cls, value: ServingModel, info: ValidationInfo) -> ServingModel:
        if value.to_options() != _SERVING and info.data.get("backend") not in {Backend.VLLM, None}:
            raise ValueError("is only for backend 'vllm', whose servers the service starts: leave it out")
        return value

    @field_validator("hedge_after_s")
    @classmethod
    def _hedge_fits_backend(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("backend") in {Backend.EMBEDDED, Backend.VLLM}:
            raise ValueError("is only for the backends 'openai' and 'litellm': behind the others there is one server, and it is busy")
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
            serving=ServingModel.from_options(card.serving),
            price=PriceModel(prompt=card.price.prompt, completion=card.price.completion),
            sampling=dict(card.sampling),
            extra_body=dict(card.extra_body),
            aggregation_prompt=card.aggregation_prompt,
            max_in_flight=card.max_in_flight,
            max_queued=card.max_queued,
            queue_timeout_s=card.queue_timeout_s,
            timeout_s=card.timeout_s,
            first_token_timeout_s=card.first_token_timeout_s,
            idle_timeout_s=card.idle_timeout_s,
            hedge_after_s=card.hedge_after_s,
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
            serving=self.serving.to_options(),
            price=Price(self.price.prompt, self.price.completion),
            sampling=dict(self.sampling),
            extra_body=dict(self.extra_body),
            aggregation_prompt=self.aggregation_prompt,
            max_in_flight=self.max_in_flight,
            max_queued=self.max_queued,
            queue_timeout_s=self.queue_timeout_s,
            timeout_s=self.timeout_s,
            first_token_timeout_s=self.first_token_timeout_s,
            idle_timeout_s=self.idle_timeout_s,
            hedge_after_s=self.hedge_after_s,
            enabled=self.enabled,
        )


class PickModel(_Model):
    """How many experts to take from the scores."""

    kind: Annotated[PickKind, BeforeValidator(one_of(PICK_KINDS))] = "dynamic"
    """``top_k``: the k best. ``sample``: k draws with replacement. ``dynamic``: as few as reach the threshold, at most k. ``gate``: those
    of the k best that pass the threshold, at least one."""
    k: int = Field(default=_STRATEGY.pick.k, ge=1, le=64)
    threshold: float | None = Field(default=None, gt=0, le=1)
    """Share of the total score that a dynamic set must reach (0.5 when left out), or that an expert must be above to pass a gate (0.15)."""


class AdjustmentsModel(_Model):
    """Who may be asked, and what is laid over the scores of whichever router the strategy has."""

    allow: Annotated[list[ExpertId], Field(max_length=1024), AfterValidator(distinct)] | None = None
    """Only these experts, in every role. Left out: any."""
    deny: Annotated[list[ExpertId], Field(max_length=1024), AfterValidator(distinct)] = []
    """Never these, in any role."""
    boost: Annotated[dict[ExpertId, Annotated[float, Field(ge=-MAX_BOOST, le=MAX_BOOST)]], Field(max_length=1024)] = {}
    """Expert to what is added to its score."""
    price_weight: float = Field(default=AS_SCORED.price_weight, ge=0, le=MAX_PRICE_WEIGHT)
    """What the score loses for each US dollar that a million tokens cost, three quarters of them prompt."""
    load_weight: float = Field(default=AS_SCORED.load_weight, ge=0, le=1)
    """What the score loses when all places of the expert are taken; at most twice that with a queue."""
    session_weight: float = Field(default=AS_SCORED.session_weight, ge=0, le=1)
    """What the expert gains that answered the whole session so far; others by their share."""

    @classmethod
    def from_adjustments(cls, adjustments: RoutingAdjustments) -> AdjustmentsModel:
        """Not checked: what is stored can always be shown."""
        return cls.model_construct(
            allow=None if adjustments.allow is None else list(adjustments.allow),
            deny=list(adjustments.deny),
            boost=dict(adjustments.boost),
            price_weight=adjustments.price_weight,
            load_weight=adjustments.load_weight,
            session_weight=adjustments.session_weight,
        )

    def to_adjustments(self) -> RoutingAdjustments:
        found = RoutingAdjustments(
            allow=None if self.allow is None else tuple(self.allow),
            deny=tuple(self.deny),
            boost=dict(self.boost),
            price_weight=self.price_weight,
            load_weight=self.load_weight,
            session_weight=self.session_weight,
        )
        return AS_SCORED if found == AS_SCORED else found


class BudgetModel(_Model):
    """What one request may use in all, beside ``max_calls`` and ``timeout_s``."""

    max_tokens: int | None = Field(default=_STRATEGY.budget.max_tokens, ge=1, le=_MAX_INTEGER)
    """Of prompts and answers of all calls together. A call that has no room is not made, and the answer so far is told."""
    max_sequential_tokens: int | None = Field(default=_STRATEGY.budget.max_sequential_tokens, ge=1, le=_MAX_INTEGER)
    """Of answers that are waited for one after the other; of calls that run at once the longest counts."""
    max_price: float | None = Field(default=_STRATEGY.budget.max_price, gt=0)
    """US dollars, by the prices of the cards."""


class EffortLevelModel(_Model):
    """What one level changes about the strategy. Left out: nothing."""

    k: int | None = Field(default=None, ge=1, le=64)
    """Experts: at most so many where the strategy asks more, so many where it asks fewer but more than one."""
    max_calls: int | None = Field(default=None, ge=1, le=1000)
    """Within the strategy's."""
    max_tokens: int | None = Field(default=None, ge=1, le=_MAX_INTEGER)
    """Of each answer."""
    thinking: Annotated[EffortName, BeforeValidator(one_of(EFFORT_NAMES))] | None = None
    """How much experts think before they answer, those whose ``sampling`` names the switch."""
    mode: Annotated[ModeName, BeforeValidator(one_of(MODE_NAMES))] | None = None
    """How the experts work together, instead of the strategy's mode."""


class EffortModel(_Model):
    """How much work a request is worth."""

    default: Annotated[EffortName, BeforeValidator(one_of(EFFORT_NAMES))] | None = None
    """The level of a request that names none. Left out: the strategy as it stands."""
    from_reasoning_effort: bool = False
    """Whether OpenAI's ``reasoning_effort`` chooses the level; otherwise it goes to the experts as it came."""
    levels: dict[Annotated[EffortName, BeforeValidator(one_of(EFFORT_NAMES))], EffortLevelModel] = {}
    """``none``, ``low``, ``medium``, ``high``: each instead of the whole built-in level of that name."""

    @classmethod
    def from_rule(cls, rule: EffortRule) -> EffortModel:
        """Not checked: what is stored can always be shown."""
        levels = {name: EffortLevelModel.model_construct(**asdict(level)) for name, level in rule.levels.items()}
        return cls.model_construct(
            default=cast(Any, rule.default), from_reasoning_effort=rule.from_reasoning_effort, levels=cast(Any, levels)
        )

    def to_rule(self) -> EffortRule:
        levels: dict[str, EffortLevel] = {name: EffortLevel(**level.model_dump()) for name, level in self.levels.items()}
        return EffortRule(self.default, self.from_reasoning_effort, levels)


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
    adjustments: AdjustmentsModel = AdjustmentsModel()
    mode: Annotated[ModeName, BeforeValidator(one_of(MODE_NAMES))] = "panel"
    """How the experts work together."""
    mode_options: JsonObject = dict(_STRATEGY.mode_options)
    """Settings of that mode and of the aggregator."""
    prompts: dict[Name, Text] = dict(_STRATEGY.prompts)
    """Prompt templates by name, instead of those that are built in."""
    quorum: int | None = Field(default=_STRATEGY.quorum, ge=1, le=64)
    """So many candidates are enough: who has not answered by then is given up. Left out: all are waited for."""
    candidate_timeout_s: float | None = Field(default=_STRATEGY.candidate_timeout_s, gt=0, le=86_400)
    """Longest wait for one of several candidates; left out: as long as the request has."""
    aggregator: Annotated[AggregatorName, BeforeValidator(one_of(AGGREGATOR_NAMES))] = "fuse"
    """What makes one answer of several candidates."""
    aggregator_expert: ExpertId | None = _STRATEGY.aggregator_expert
    """A fixed fusing expert; without it the measured aggregator profile chooses."""
    fallback_expert: ExpertId | None = _STRATEGY.fallback_expert
    """Where a query goes that is like nothing known; without it such a query is refused."""
    max_calls: int = Field(default=_STRATEGY.max_calls, ge=1, le=1000)
    """Hard cap on calls for one request: the router's own, the candidates' and the aggregator's."""
    timeout_s: float = Field(default=_STRATEGY.timeout_s, gt=0, le=86_400)
    hedge_after_s: float | None = Field(default=_STRATEGY.hedge_after_s, gt=0, le=86_400)
    """Silence of the only expert that was chosen after which the next best is asked as well. Left out: never."""
    budget: BudgetModel = BudgetModel()
    alone_from_accuracy: float | None = Field(default=_STRATEGY.alone_from_accuracy, gt=0, le=1)
    """Measured share of right answers, at every skill of the query, from which the best expert is asked alone. Left out: never."""
    shed_from_load: float | None = Field(default=_STRATEGY.shed_from_load, gt=0, le=1000)
    """Calls that run and wait, against what an expert takes at once, from which fewer of several experts are asked. Left out: never."""
    effort: EffortModel = EffortModel()
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
            adjustments=AdjustmentsModel.from_adjustments(strategy.adjustments),
            mode=cast(Any, strategy.mode),  # any text when not checked
            mode_options=dict(strategy.mode_options),
            prompts=dict(strategy.prompts),
            quorum=strategy.quorum,
            candidate_timeout_s=strategy.candidate_timeout_s,
            aggregator=cast(Any, strategy.aggregator),
            aggregator_expert=strategy.aggregator_expert,
            fallback_expert=strategy.fallback_expert,
            max_calls=strategy.max_calls,
            timeout_s=strategy.timeout_s,
            hedge_after_s=strategy.hedge_after_s,
            budget=BudgetModel.model_construct(**asdict(strategy.budget)),
            alone_from_accuracy=strategy.alone_from_accuracy,
            shed_from_load=strategy.shed_from_load,
            effort=EffortModel.from_rule(strategy.effort),
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
            pick=PickRule.of(self.pick.kind, self.pick.k, self.pick.threshold),
            adjustments=self.adjustments.to_adjustments(),
            mode=self.mode,
            mode_options=dict(self.mode_options),
            prompts=dict(self.prompts),
            quorum=self.quorum,
            candidate_timeout_s=self.candidate_timeout_s,
            aggregator=self.aggregator,
            aggregator_expert=self.aggregator_expert,
            fallback_expert=self.fallback_expert,
            max_calls=self.max_calls,
            timeout_s=self.timeout_s,
            hedge_after_s=self.hedge_after_s,
            budget=Budget(**self.budget.model_dump()),
            alone_from_accuracy=self.alone_from_accuracy,
            shed_from_load=self.shed_from_load,
            effort=self.effort.to_rule(),
            enabled=self.enabled,
        )


class SkillModel(_Model):
    """A skill as the admin REST reads and writes it."""

    name: Name
    description: Text = ""
