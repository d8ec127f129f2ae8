"""What the admin plane answers, for ``/openapi.json``: the endpoints write these shapes by hand, tests compare them."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from api.schemas.answers import CallTold, Decided, TimingsTold, Told, UsageTold
from experts_registry.key_models import KeyModel
from experts_registry.models import ExpertModel, SkillModel, StrategyModel

RowT = TypeVar("RowT")


class PageOf(Told, Generic[RowT]):
    """Some rows of a list."""

    data: list[RowT]
    next: str | None
    """`cursor` of the next page; null on the last."""


class Rows(Told, Generic[RowT]):
    """A list in one piece."""

    data: list[RowT]


# --- the registry ----------------------------------------------------------------------------------------------------


class HealthTold(Told):
    """In this process."""

    state: Literal["closed", "half_open", "open"]
    in_flight: int
    queued: int


class ExpertTold(ExpertModel):
    """One expert, and how it is in this process."""

    health: HealthTold
    new_skills: list[str] | None = None
    """After a change: the declared skills that nobody knew before."""
    num_outdated: int | None = None
    """After a change: questions that the older card alone has answered, which count no more."""


SERVED_OF_EXPERTS = frozenset(ExpertTold.model_fields) - frozenset(ExpertModel.model_fields) | {"version"}
"""What the service adds to a card that it serves: nobody declared it, and no change of it is anybody's."""


class StrategyTold(StrategyModel):
    pass


class SkillTold(SkillModel):
    pass


class CheckFailure(Told):
    code: str
    message: str


class CheckTold(Told):
    """How one real call went."""

    expert: str
    latency_ms: float
    ok: bool
    answer: str | None
    usage: UsageTold | None
    error: CheckFailure | None
    health: str


class FoundTold(Told):
    card: ExpertModel
    state: Literal["new", "known", "invalid", "added"]
    problem: str | None = None
    """Why it cannot be added."""


class Discovered(Told):
    base_url: str
    data: list[FoundTold]


class Applied(Told):
    """Entries such as "expert numerals", "strategy auto", "skill algebra"."""

    created: list[str]
    updated: list[str]
    unchanged: list[str]
    removed: list[str]
    outdated: list[str]
    """What was measured and counts no more, since its expert may answer differently now."""
    dry_run: bool


class OperatingPointTold(Told):
    threshold: float
    accuracy: float
    cost: float
    cost_share: float
    """Of what asking the last expert every time costs."""
    escalation_rate: float


class Calibrated(Told):
    strategy: str
    stored: bool
    chosen: OperatingPointTold
    curve: list[OperatingPointTold]
    last_alone: OperatingPointTold
    num_questions: int
    threshold_before: float | None
    num_without_cascade: int


class QuestionTold(Told):
    """A labelled question; what it does not have is left out."""

    id: str
    question: str
    answer: str
    category: str | None = None
    skills: list[str] | None = None
    options: list[str] | None = None
    grader: str | None = None
    history: list[dict[str, Any]] | None = None


class QuestionsAdded(Told):
    num_changed: int
    ids: list[str]


# --- measurement -----------------------------------------------------------------------------------------------------


class CountTold(Told):
    num_answered: int
    num_correct: int
    accuracy: float | None
    interval: list[float]
    """95 %, after Wilson: lowest and highest."""


class SkillCount(CountTold):
    skill: str


class CategoryCount(CountTold):
    category: str


class CountsTold(Told):
    """What an expert was measured at."""

    expert: str
    overall: CountTold
    skills: list[SkillCount]


class ProfileTold(CountsTold):
    num_outdated: int
    """Questions that only older cards of the expert have answered, which is in none of the counts."""


class AggregatorProfileTold(Told):
    expert: str
    overall: CountTold
    categories: list[CategoryCount]


class OutcomeTold(Told):
    expert_id: str
    question_id: str
    skills: list[str]
    category: str | None
    correct: bool
    answer: str
    latency_ms: float
    error: str | None
    expert_fingerprint: str | None
    """Of the card that answered."""


class AggregatorOutcomeTold(Told):
    expert_id: str
    question_id: str
    category: str | None
    correct: bool
    answer: str
    error: str | None
    expert_fingerprint: str | None
    """Of the card that answered, and of what it was asked with."""


class ProgressTold(Told):
    expert_id: str
    num_done: int
    num_total: int
    num_correct: int
    num_failed: int
    stopped: str | None


class SummaryTold(CountsTold):
    num_failed: int
    stopped: str | None


class RunRow(Told):
    id: str
    status: Literal["running", "open", "finished", "rolled_back"]
    note: str
    created_at: float
    finished_at: float | None
    experts: list[str]
    num_questions: int
    num_planned: int
    num_recorded: int
    num_correct: int
    error: str | None


class RunTold(RunRow):
    """While it runs in this process `progress`, else `summary`."""

    progress: list[ProgressTold] | None = None
    summary: list[SummaryTold] | None = None


class AggregatorsImported(Told):
    num_aggregator_outcomes: int


class AggregatorRunTold(Told):
    id: str
    status: Literal["running", "finished", "cancelled", "failed"]
    num_planned: int
    num_recorded: int
    num_correct: int
    error: str | None
    progress: list[ProgressTold]


class BestWay(Told):
    name: str
    accuracy: float | None
    cost: float | None


class EvaluationRow(Told):
    """One evaluation, without its report."""

    id: str
    name: str
    created_at: float
    """Of its report; before there is one, when it was begun."""
    num_questions: int
    num_experts: int | None
    """None before there is a report."""
    best: BestWay | None
    """The best strategy or router."""
    status: Literal["running", "finished", "cancelled", "failed"]
    stage: str | None
    """What is being done, in words; None where that is over."""
    num_done: int | None
    num_total: int | None
    """Of this stage."""
    error: str | None
    """Why there is no report."""


class EvaluationTold(EvaluationRow):
    report: dict[str, Any] | None
    """As `consilium eval … --json` writes it: `rows` has every way with accuracy, interval and cost, `groups` the tables by skill."""


class MappedCategory(Told):
    category: str
    share: float
    expert: str
    score: float
    generalist_score: float


class MappedExpert(Told):
    expert: str
    kept: bool
    parameters_b: float | None
    memory_mb: float | None
    score: float
    categories: list[str]


class CategoryMapTold(Told):
    budget: float | None
    unit: str
    total: float | None
    average_active_b: float | None
    expected_score: float
    generalist: str
    generalist_score: float
    classifier: str
    classifier_accuracy: float | None
    min_confidence: float
    fallback_share: float
    categories: list[MappedCategory]
    experts: list[MappedExpert]
    not_measured: list[str]


# --- traces, feedback, keys, audit -----------------------------------------------------------------------------------


class TraceRow(Told):
    id: str
    request_id: str
    model: str
    strategy: str | None
    started_at: float
    status: Literal["ok", "error", "cancelled"]
    router: str | None
    experts: list[str]
    skills: list[str]
    aggregator: str | None
    total_ms: float
    usage: UsageTold
    error_code: str | None
    stream: bool


class TracedCall(CallTold):
    text: str | None


class TraceTold(Decided):
    """One request: what decided it, its calls and, where traces may keep them, the conversation and the answers."""

    id: str
    request_id: str
    model: str
    strategy: str | None
    started_at: float
    status: Literal["ok", "error", "cancelled"]
    experts: list[str]
    calls: list[TracedCall]
    aggregator: str | None
    aggregator_reason: str | None
    answered_by: str | None
    panel_changed_answer: bool | None
    sequential_tokens: int
    timings_ms: TimingsTold
    total_ms: float
    usage: UsageTold
    error_code: str | None
    error_message: str | None
    stream: bool
    session_id: str | None
    messages: list[dict[str, Any]] | None
    answer: str | None


class SolvedProblemTold(Told):
    """A problem with an answer that somebody vouched for."""

    id: str
    tenant: str
    """A key's id, or `_local`."""
    question: str
    answer: str
    skills: list[str]
    source: Literal["feedback", "import"]
    """Who vouched for it: a user, or somebody with the admin key."""
    expert: str | None
    """Whose answer it is, where one expert's."""
    trace_id: str | None
    """The request that it was solved in."""
    feedback_id: str | None
    """What was said of it; taken back, the problem goes."""
    created_at: float
    used_at: float | None
    """When it was last shown to an expert."""


class ProblemsKept(Told):
    tenant: str
    ids: list[str]
    """In the order of the request."""


class Forgotten(Told):
    num_deleted: int


class TallyTold(Told):
    num_answered: float
    num_correct: float
    accuracy: float | None


class SkillTally(TallyTold):
    skill: str


class CategoryTally(TallyTold):
    category: str


class FeedbackProfileTold(Told):
    """What feedback says of one expert."""

    expert: str
    num_feedback: int
    accuracy: float | None
    surprise: float | None
    window: int
    drifted: bool
    usual: float | None
    drifted_at: float | None
    num_alarms: int
    frozen: bool
    overall: TallyTold
    skills: list[SkillTally]
    categories: list[CategoryTally]


class SecretTold(Told):
    prefix: str
    until: float | None
    """When it stops to work; null: as long as the key does."""


class KeyTold(KeyModel):
    """One API key without its secrets."""

    state: Literal["active", "expired", "revoked"]
    prefix: str | None
    """The first characters of its newest secret."""
    secrets: list[SecretTold]
    created_at: float
    revoked_at: float | None
    last_used_at: float | None = None
    """Where it was looked up: null when it never was used."""


class KeyIssued(KeyTold):
    key: str
    """The secret, told this once."""


SERVED_OF_KEYS = frozenset(KeyIssued.model_fields) - frozenset(KeyModel.model_fields) | {"version"}
"""What the service adds to a key that it serves."""


class UsageRow(Told):
    key: str
    day: str
    expert: str | None
    requests: int
    calls: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    usd: float


class AuditRow(Told):
    id: str
    at: float
    actor: str
    role: str
    method: str
    path: str
    status: int
    request_id: str
    before: Any
    after: Any


# --- managed servers -------------------------------------------------------------------------------------------------


class ServerTimes(Told):
    load_s: float | None
    sleep_s: float | None
    wake_s: float | None


class ServerMeasured(Told):
    memory_mb: float | None
    asleep_mb: float | None


class ServerTold(Told):
    """One vLLM server; memory in MB, times in seconds."""

    id: str
    state: str
    residency: str
    reason: str | None
    since: float
    model: str
    experts: list[str]
    adapters: list[str]
    pool: str
    memory_mb: float
    held_mb: float
    pinned: bool
    num_serving: int
    num_waiting: int
    idle_s: float | None
    num_loads: int
    num_failures: int
    times: ServerTimes
    measured: ServerMeasured
    base_url: str | None
    pid: int | None
    is_adopted: bool
    is_outdated: bool
    trouble: str | None


class PoolTold(Told):
    """Memory that servers share, and what was counted there since the start."""

    id: str
    policy: str
    memory_mb: float
    held_mb: float
    resident: list[str]
    num_uses: int
    num_hits: int
    num_loads: int
    num_wakes: int
    num_sleeps: int
    num_stops: int
    num_failed: int
    lost_s: float
    waited_s: float


class ServersTold(PageOf[ServerTold]):
    pools: list[PoolTold]
    unplaced: dict[str, str]
    """Experts that could not be given a server, with the reason."""
    trouble: str | None
    """Why no server can be started at all."""


class LogsTold(Told):
    id: str
    lines: list[str]
