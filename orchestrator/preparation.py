"""Everything before the first call: resolve, filter, route, plan."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from domain.chat import ChatRequest
from domain.deadline import Deadline
from domain.errors import ContextTooLong, DeadlineExceeded, InvalidRequest, NoEligibleExpert
from domain.experts import ExpertCard, HealthState
from domain.plan import Candidate, ExpertFailure, Plan
from domain.quoting import quoted
from domain.registry import RegistrySnapshot
from domain.routing import PICK_KINDS, PickRule, RoutingDecision, RoutingQuery, ScoredExpert
from domain.strategy import Strategy
from orchestrator.aggregation.base import AggregationContext, Aggregator, Chosen, Synthesis
from orchestrator.aggregation.catalogue import AGGREGATORS, aggregator_named
from orchestrator.aggregation.vote import Vote
from orchestrator.eligibility import Check, Eligibility, check_names, eligible, fewest_tokens, prompt_letters
from orchestrator.limits import Limits
from orchestrator.planner import as_planned, make_plan
from orchestrator.ports import Directory, Router
from orchestrator.recorder import TraceRecorder
from orchestrator.resolve import Target, resolve

_AS_ROUTED = "it was chosen when the line was routed"
_NOTHING_TO = {"router": "route", "pick": "pick", "k": "pick", "aggregator": "aggregate", "aggregator_expert": "aggregate"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is ready to run."""

    request: ChatRequest
    plan: Plan
    context: AggregationContext
    aggregator: Aggregator
    num_free_calls: int
    """Calls that may still be made after the candidates'."""

    @property
    def announced_aggregator(self) -> str:
        """How the answer will be made if no expert fails; for headers, which go out before the answer does."""
        if len(self.plan.calls) == 1:
            return "single"
        if not self.aggregator.calls_expert:
            return self.aggregator.name
        expert = self.aggregator.expert_for(self.context) if self.num_free_calls else None
        return Vote.name if expert is None else f"{self.aggregator.name}:{expert.id}"


def settle(prepared: Prepared, candidates: Sequence[Candidate]) -> Chosen | Synthesis | None:
    """How *candidates* become the answer; None when only one is left and nothing has to be done.

    An aggregator that would need a call more than the request may make gives way to a vote.
    """
    if len(candidates) == 1:
        return None
    verdict = prepared.aggregator.decide(prepared.context, candidates)
    if isinstance(verdict, Synthesis) and prepared.num_free_calls < 1:
        chosen = Vote().decide(prepared.context, candidates)
        return Chosen(chosen.candidate, f"max_calls leaves no call to {verdict.expert.id}, so {chosen.why}", chosen.by)
    return verdict


def why_single(num_calls: int) -> str:
    """Why nothing had to be aggregated, when so many candidates were asked."""
    return "one expert was asked" if num_calls == 1 else f"one of {num_calls} candidates answered"


def stand_in(prepared: Prepared, failures: Sequence[ExpertFailure]) -> Prepared | None:
    """*prepared* with the next best considered expert instead of those that have failed; None when there is none, or when one of
    them was called after all: then the request has failed as it would have with healthy circuits.

    Between routing and call a circuit may open, or another request may take the one trial of a half-open one.
    """
    context, tried = prepared.context, {failure.expert_id for failure in failures}
    decision, experts = context.decision, context.snapshot.experts
    if not decision.others_fit or any(failure.called for failure in failures):
        return None
    fits = (e.expert_id for e in decision.considered if e.score > 0 and e.expert_id not in tried and context.usable(experts[e.expert_id]))
    chosen = next(fits, None)
    if chosen is None:
        return None
    missed = ", ".join(expert_id for expert_id in dict.fromkeys(decision.selected) if expert_id in tried)
    decision = replace(
        decision,
        selected=(chosen,),
        considered=tuple(_with_selected(expert, expert.expert_id == chosen) for expert in decision.considered),
        reason=f"{decision.reason} Note: {missed} could not be called, so the next best was asked, {chosen}.",
    )
    plan = make_plan(prepared.request, decision, experts, deadline=prepared.plan.deadline, max_calls=1, fused=False)
    return replace(prepared, plan=plan, context=replace(context, decision=decision))


class Preparation:
    """Resolve, filter, route and plan. Holds no per-request state."""

    def __init__(self, *, directory: Directory, routers: Mapping[str, Router], limits: Limits) -> None:
        self._directory, self._routers, self._limits = directory, routers, limits

    async def decide(self, request: ChatRequest, recorder: TraceRecorder) -> tuple[Target, RegistrySnapshot, RoutingDecision, Deadline]:
        """The routing decision alone, with what it was made from and the deadline that began with it."""
        snapshot = self._directory.snapshot()
        target = resolve(request.model, snapshot, request.labels)
        recorder.strategy = None if target.expert else target.strategy.id
        check = Check(request, self._directory.health_of)
        if target.expert:
            _check_options_for_one(target.expert, request, snapshot, check)
        who = self._only(target.expert, request) if target.expert else eligible(request, snapshot, self._directory.health_of)
        strategy = target.strategy
        deadline = self._deadline(request, strategy)
        router = self._routers[request.options.router or strategy.router]
        _check_aggregation(request, strategy, snapshot, check)
        query = RoutingQuery(
            request=request,
            experts=who.experts,
            pick=self._pick(request, strategy),
            seed=_seed(request),
            fallback_expert=strategy.fallback_expert,
            # Another router than the strategy's would not understand its options.
            options=strategy.router_options if router.name == strategy.router else {},
            deadline=deadline,
            max_calls=self._max_calls(request, strategy),
            barred=check.barred,
        )
        try:
            with recorder.timing("route"):
                async with asyncio.timeout(deadline.remaining_s):
                    decision = await router.route(query, snapshot)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed while the request was being routed") from None
        recorder.routed(decision.calls)
        filtered = tuple(ScoredExpert(expert, 0.0, False, why) for expert, why in sorted(who.rejected.items()))
        decision = replace(decision, considered=(*decision.considered, *filtered))
        recorder.decision = decision
        return target, snapshot, decision, deadline

    async def prepare(self, request: ChatRequest, recorder: TraceRecorder) -> Prepared:
        """Everything up to the plan; raises the request's errors before any expert is called."""
        target, snapshot, decision, deadline = await self.decide(request, recorder)
        strategy = target.strategy
        aggregator = _aggregator(request, strategy)
        context = AggregationContext(request, strategy, decision, snapshot, self._usable(request))
        max_calls = self._max_calls(request, strategy) - decision.num_calls
        fused = aggregator.expert_for(context) is not None
        plan = make_plan(request, decision, snapshot.experts, deadline=deadline, max_calls=max_calls, fused=fused)
        recorder.decision = as_planned(decision, plan, max_calls=max_calls, fused=fused)
        context = replace(context, decision=recorder.decision)
        return Prepared(request, plan, context, aggregator, max_calls - len(plan.calls))

    def again(self, request: ChatRequest, decision: RoutingDecision, *, aggregator_expert: str | None, wait_s: float) -> Prepared:
        """What ``prepare`` gave for *request* when *decision* was made, with a deadline that begins now and leaves *wait_s* more: nobody
        waits for the answer, and its expert may have to be loaded first.

        *aggregator_expert* is the one that was to read the candidates; without one no expert does. Raises ``ModelNotFound`` and
        ``InvalidRequest`` when the registry has changed so much that it cannot be carried out any more.
        """
        snapshot = self._directory.snapshot()
        target = resolve(request.model, snapshot, request.labels)
        gone = [name for name in (*decision.selected, aggregator_expert) if name is not None and name not in snapshot.experts]
        if gone:
            raise InvalidRequest(f"the expert {gone[0]!r}, which this request was routed to, was removed meanwhile: ask again")
        deadline = Deadline.after(self._deadline(request, target.strategy).remaining_s + wait_s)
        plan = make_plan(request, decision, snapshot.experts, deadline=deadline, max_calls=len(decision.selected), fused=False)
        fixed = replace(request, options=replace(request.options, aggregator_expert=aggregator_expert))
        context = AggregationContext(fixed, target.strategy, decision, snapshot, lambda card: card.id == aggregator_expert, _AS_ROUTED)
        return Prepared(request, plan, context, _aggregator(request, target.strategy), int(aggregator_expert is not None))

    def _deadline(self, request: ChatRequest, strategy: Strategy) -> Deadline:
        return Deadline.after(min(request.options.timeout_s or strategy.timeout_s, self._limits.max_timeout_s))

    def _max_calls(self, request: ChatRequest, strategy: Strategy) -> int:
        return min(request.options.max_calls or strategy.max_calls, strategy.max_calls, self._limits.max_calls)

    def _only(self, card: ExpertCard, request: ChatRequest) -> Eligibility:
        """The expert that was asked for by name: role and declared capabilities are the caller's own affair."""
        if self._directory.health_of(card.id) is HealthState.OPEN:
            why = "unhealthy: its last calls failed, it is tried again after the cool-down"
            raise NoEligibleExpert(f"the expert {card.id} is {why}", reasons={card.id: why})
        if (size := fewest_tokens(prompt_letters(request), card)) > card.context_length:
            raise ContextTooLong(
                f"about {size} tokens are needed at least, the expert {card.id} has a context of {card.context_length}", param="messages"
            )
        return Eligibility((card,), {})

    def _pick(self, request: ChatRequest, strategy: Strategy) -> PickRule:
        """The strategy's rule with the caller's wishes over it; a bare ``k`` asks for exactly that many."""
        options, rule = request.options, strategy.pick
        if options.pick is not None and options.pick not in PICK_KINDS:
            raise InvalidRequest(
                f"consilium.pick must be one of {', '.join(PICK_KINDS)}, not {quoted(options.pick)}", param="consilium.pick"
            )
        if options.k is not None and not 1 <= options.k <= self._limits.max_experts:
            raise InvalidRequest(f"consilium.k must be between 1 and {self._limits.max_experts}, not {options.k}", param="consilium.k")
        kind = options.pick or ("top_k" if options.k is not None and rule.kind == "dynamic" else rule.kind)
        return PickRule(kind, min(options.k or rule.k, self._limits.max_experts), rule.threshold)

    def _usable(self, request: ChatRequest) -> Callable[[ExpertCard], bool]:
        check = Check(request, self._directory.health_of)
        return lambda card: check.obstacle(card) is None


def _with_selected(expert: ScoredExpert, selected: bool) -> ScoredExpert:
    """A copy puts its reason into words, so there is none where nothing changes."""
    return expert if expert.selected is selected else replace(expert, selected=selected)


def _check_options_for_one(card: ExpertCard, request: ChatRequest, snapshot: RegistrySnapshot, check: Check) -> None:
    """Raise ``InvalidRequest`` for options that mean nothing, or forbid it, when *card* was asked for by its id."""
    options = request.options
    choices = {
        "router": options.router is not None,
        "pick": options.pick is not None,
        "k": options.k is not None and options.k != 1,
        "aggregator": options.aggregator is not None,
        "aggregator_expert": options.aggregator_expert is not None,
    }
    for name, given in choices.items():
        if given:
            raise InvalidRequest(
                f"consilium.{name}: the model {card.id!r} is one expert, there is nothing to {_NOTHING_TO[name]}; "
                "leave it out, or use model 'auto'",
                param=f"consilium.{name}",
            )
    for name, names in (("allow", options.allow or ()), ("deny", options.deny)):
        check_names(names, request, snapshot, param=f"consilium.{name}")
    if why := check.barred(card):
        param = "consilium.deny" if card.id in options.deny else "consilium.allow"
        raise InvalidRequest(f"{param}: the model {card.id!r} asks for that expert, which is {why}; change one of them", param=param)


def _aggregator(request: ChatRequest, strategy: Strategy) -> Aggregator:
    return aggregator_named(request.options.aggregator or strategy.aggregator)


def _check_aggregation(request: ChatRequest, strategy: Strategy, snapshot: RegistrySnapshot, check: Check) -> None:
    """Raise ``InvalidRequest`` for an unknown aggregator, and for an ``aggregator_expert`` that could not be asked."""
    aggregator, asked, param = _aggregator(request, strategy), request.options.aggregator_expert, "consilium.aggregator_expert"
    if asked is None:
        return
    if not aggregator.calls_expert:
        able = ", ".join(name for name, other in AGGREGATORS.items() if other.calls_expert)
        raise InvalidRequest(
            f"{param}: the aggregator {aggregator.name!r} calls no expert; leave it out, or aggregate by {able}", param=param
        )
    check_names([asked], request, snapshot, param=param)
    if why := check.obstacle(snapshot.experts[asked]):
        raise InvalidRequest(f"{param}: the expert {asked!r} cannot aggregate: {why}", param=param)


def _seed(request: ChatRequest) -> int:
    if request.options.seed is not None:
        return request.options.seed
    asked = request.params.get("seed")
    return asked if isinstance(asked, int) else zlib.crc32(request.id.encode())
