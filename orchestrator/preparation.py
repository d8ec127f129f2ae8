"""Everything before the first call: resolve, filter, route, plan."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from domain.access import Access
from domain.adjustments import UNKNOWN_CIRCUMSTANCES, Circumstances, RoutingAdjustments
from domain.budget import Budget
from domain.chat import NO_OPTIONS, ChatRequest, user_turns
from domain.deadline import Clock, Deadline
from domain.errors import ConsiliumError, ContextTooLong, DeadlineExceeded, InvalidRequest, NoEligibleExpert
from domain.experts import ExpertCard, ExpertRole, HealthState
from domain.made_often import made_often
from domain.memory import NOTHING_RECALLED, Recollection, tenant_of
from domain.quoting import quoted
from domain.registry import RegistrySnapshot
from domain.routing import PICK_KINDS, PickRule, RoutingDecision, RoutingQuery, ScoredExpert
from domain.strategy import DEFAULT_MODE, Strategy, experts_in_options
from orchestrator.aggregation.base import AggregationContext, Aggregator
from orchestrator.aggregation.catalogue import AGGREGATORS, aggregator_named
from orchestrator.aggregation.weighted_vote import POSTERIOR
from orchestrator.budget import BudgetLedger
from orchestrator.cascade.ladder import as_laddered, make_ladder
from orchestrator.effort import told as told_effort
from orchestrator.effort import with_effort
from orchestrator.eligibility import Check, Eligibility, check_names, eligible, fewest_tokens
from orchestrator.limits import Limits
from orchestrator.modes.base import Mode, NextExpert
from orchestrator.modes.cascade import Cascade
from orchestrator.modes.catalogue import mode_named
from orchestrator.options import check as check_options
from orchestrator.options import read
from orchestrator.planner import seed_of
from orchestrator.ports import Directory, Load, Memory, Router, SessionHistory
from orchestrator.posteriors import Posteriors
from orchestrator.recorder import TraceRecorder
from orchestrator.recruiting import without_overcalling, without_the_overloaded
from orchestrator.resolve import Target, resolve
from orchestrator.visibility import View, Views

_AS_ROUTED = "it was chosen when the line was routed"
_NOTHING_TO = {
    "router": "route",
    "router_options": "route",
    "pick": "pick",
    "k": "pick",
    "boost": "adjust",
    "price_weight": "adjust",
    "load_weight": "adjust",
    "session_weight": "adjust",
    "mode": "combine",
    "mode_options": "combine",
    "quorum": "combine",
    "aggregator": "aggregate",
    "aggregator_expert": "aggregate",
}


@made_often
@dataclass(frozen=True, slots=True)
class Decided:
    """A routing decision, and what it was made from."""

    request: ChatRequest
    """With its effort."""
    target: Target
    """As that effort changes it."""
    view: View
    decision: RoutingDecision
    deadline: Deadline
    check: Check
    """Who may be called."""


@made_often
@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is ready to run."""

    request: ChatRequest
    context: AggregationContext
    mode: Mode
    deadline: Deadline
    ledger: BudgetLedger
    view: View
    """The registry as the caller may see it."""
    num_stand_ins: int = 0
    """Experts that may still be asked in place of those that fail."""


class Preparation:
    """Resolve, filter, route and plan. Holds no per-request state."""

    def __init__(
        self,
        *,
        directory: Directory,
        routers: Mapping[str, Router],
        limits: Limits,
        load: Load | None = None,
        history: SessionHistory | None = None,
        memory: Memory | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """*load* and *history* are what strategies may weigh in; without them nobody is busy and every session is new. *memory* has solved
        problems; without it there are none. *clock*: what deadlines are measured by."""
        self._clock, self._memory = clock, memory
        self._directory, self._routers, self._limits = directory, routers, limits
        self._load, self._history = load, history
        self._views = Views()
        self._posteriors = Posteriors()

    def view(self, access: Access) -> View:
        """The registry as a caller with *access* may see it."""
        return self._views.view(self._directory.snapshot(), access)

    def may_be_answered_later(self, request: ChatRequest) -> bool:
        """Whether an expert that *request* may be routed to is left out only because its last calls failed."""
        snapshot = self.view(request.access).seen
        target = resolve(request.model, snapshot, request.access)
        if target.expert is not None:
            return self._directory.health_of(target.expert.id) is HealthState.OPEN
        check = Check(request, self._directory.health_of, target.strategy.adjustments)
        return any(ExpertRole.CANDIDATE in card.roles and check.rests(card) for card in snapshot.experts.values())

    async def decide(self, request: ChatRequest, recorder: TraceRecorder) -> Decided:
        """The routing decision alone, with what it was made from and the deadline that began with it. Nobody is named whom the caller may
        not see."""
        view = self.view(request.access)
        snapshot = view.seen
        request, target = with_effort(request, resolve(request.model, snapshot, request.access))
        recorder.strategy = None if target.expert else target.strategy.id
        strategy = target.strategy
        check = Check(request, self._directory.health_of, strategy.adjustments)
        if target.expert and request.options is NO_OPTIONS and (known := view.named.get(request.model)) is not None:
            with recorder.timing("route"):
                self._only(target.expert, check)
            recorder.decision = known
            return Decided(request, target, view, known, self._deadline(request, strategy), check)
        if target.expert:
            _check_options_for_one(target.expert, request, snapshot, check)
            who = self._only(target.expert, check)
        else:
            who = eligible(request, snapshot, check)
        deadline = self._deadline(request, strategy)
        router = self._routers[request.options.router or strategy.router]
        adjustments = _adjustments(request, strategy, snapshot)
        _check_aggregation(request, strategy, snapshot, check)
        if request.options.mode is not None or request.options.mode_options is not None:
            _check_mode(request, strategy, snapshot)
        query = RoutingQuery(
            request=request,
            experts=who.experts,
            pick=self._pick(request, strategy),
            seed=seed_of(request),
            fallback_expert=strategy.fallback_expert,
            rejected=who.rejected,
            options=_router_options(request, strategy, router, snapshot),
            deadline=deadline,
            max_calls=self._max_calls(request, strategy),
            barred=check.barred,
            adjustments=adjustments,
            circumstances=self._circumstances(request) if adjustments.moves_scores else UNKNOWN_CIRCUMSTANCES,
        )
        try:
            with recorder.timing("route"):
                if target.expert:  # by name, which nobody has to wait for
                    decision = await router.route(query, view.whole)
                else:
                    async with asyncio.timeout(deadline.remaining_s):
                        decision = await router.route(query, view.whole)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed while the request was being routed") from None
        except ConsiliumError as error:
            view.error(error)  # of a router, which knows the whole registry; what the caller named itself is refused before
            raise
        recorder.routed(decision.calls)
        if len(decision.selected) > 1 and decision.cascade is None:
            decision = self._worth_asking(decision, request, strategy, snapshot)
        if who.rejected:
            filtered = tuple(ScoredExpert(expert, 0.0, False, why) for expert, why in sorted(who.rejected.items()))
            decision = decision.altered(considered=(*decision.considered, *filtered))
        if adjustments.moves_scores:
            decision = decision.detailed_by(partial(_with, decision, "adjustments", partial(_told, adjustments)))
        if request.effort is not None:
            decision = decision.detailed_by(partial(_with, decision, "effort", partial(told_effort, request.effort)))
        recorder.decision = decision = view.decision(decision)
        if target.expert and request.options is NO_OPTIONS:
            view.named[request.model] = decision
        return Decided(request, target, view, decision, deadline, check)

    async def prepare(self, request: ChatRequest, recorder: TraceRecorder) -> Prepared:
        """Everything up to the first call; raises the request's errors before any expert is called."""
        decided = await self.decide(request, recorder)
        request, strategy, view = decided.request, decided.target.strategy, decided.view
        decision, deadline = decided.decision, decided.deadline
        options = _mode_options(request, strategy)
        max_calls = self._max_calls(request, strategy) - decision.num_calls
        if options.get("weights") == POSTERIOR and decision.cascade is None:
            scores = {expert.expert_id: expert.score for expert in decision.considered if expert.score > 0}
            decision = replace(decision, detail={**decision.detail, POSTERIOR: self._posteriors.update(strategy.id, scores)})
        recalled = NOTHING_RECALLED
        if decision.cascade is None and mode_named(_mode_name(request, strategy)).recalls:
            with recorder.timing("route"):
                recalled = await self._recalled(request, strategy, options, deadline)
            decision = decision.detailed_by(partial(_with, decision, "memory", partial(_told_recalled, recalled)))
        ledger = BudgetLedger(_budget(request, strategy), max_calls=max_calls)
        context = AggregationContext(
            request,
            strategy,
            decision,
            view.seen,
            decided.check.usable,
            options=options,
            deadline=deadline,
            again=ledger.again,
            recalled=recalled,
        )
        prepared = _made(context, max_calls, ledger, view, num_stand_ins=self._limits.max_stand_ins)
        recorder.decision = prepared.context.decision
        return prepared

    async def _recalled(self, request: ChatRequest, strategy: Strategy, options: Mapping[str, Any], deadline: Deadline) -> Recollection:
        """The caller's solved problems that are like *request*. A memory that cannot be asked costs the demonstrations, not the answer."""
        known = mode_named(_mode_name(request, strategy)).options
        turns, limit = user_turns(request.messages), read(options, known, "demonstrations")
        writes = bool(read(options, known, "write"))
        if self._memory is None:
            return Recollection(why="there is no memory")
        if not turns or not limit:
            return Recollection(writes=writes, why="no demonstrations are asked for" if turns else "no user has said anything")
        try:
            async with asyncio.timeout(deadline.remaining_s):
                found = await self._memory.recall(
                    tenant_of(request.key_id), turns[-1], limit=limit, min_similarity=read(options, known, "min_similarity")
                )
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed while the memory was being read") from None
        except ConsiliumError as error:
            return Recollection(writes=writes, why=f"the memory could not be asked: {error}")
        return Recollection(tuple(found), writes, "" if found else "no solved problem is like this one")

    async def next_expert(self, prepared: Prepared, asked: NextExpert) -> ExpertCard | None:
        """The best for *asked*, as the request's router says of those that are eligible; None when nobody is left. The router makes no
        call of its own for it."""
        context, strategy = prepared.context, prepared.context.strategy
        request = replace(prepared.request, messages=asked.messages)
        router = self._routers[request.options.router or strategy.router]
        adjustments = _adjustments(request, strategy, context.snapshot)
        check = Check(request, self._directory.health_of, strategy.adjustments)
        try:
            who = eligible(request, context.snapshot, check)
            experts = tuple(card for card in who.experts if card.id not in asked.without)
            if not experts:
                return None
            query = RoutingQuery(
                request=request,
                experts=experts,
                pick=PickRule("top_k", 1),
                seed=seed_of(request),
                options=_router_options(request, strategy, router, context.snapshot),
                deadline=prepared.deadline,
                max_calls=1,
                barred=check.barred,
                adjustments=adjustments,
                circumstances=self._circumstances(request) if adjustments.moves_scores else UNKNOWN_CIRCUMSTANCES,
            )
            async with asyncio.timeout(prepared.deadline.remaining_s):
                decision = await router.route(query, prepared.view.whole)
        except (ConsiliumError, TimeoutError):  # whoever was found for the question itself is still there
            left = (expert_id for expert_id in context.decision.selected if expert_id not in asked.without)
            return next((card for expert_id in left if context.usable(card := context.snapshot.experts[expert_id])), None)
        return context.snapshot.experts.get(decision.selected[0]) if decision.selected else None

    def again(
        self,
        request: ChatRequest,
        decision: RoutingDecision,
        *,
        aggregator_expert: str | None,
        wait_s: float,
        in_waves: bool,
        recalled: Recollection = NOTHING_RECALLED,
    ) -> Prepared:
        """What ``prepare`` gave for *request* when *decision* was made, with a deadline that begins now and leaves *wait_s* more: nobody
        waits for the answer, and its expert may have to be loaded first.

        *aggregator_expert* is the one that was to read the candidates; without one no expert does. *recalled* is what the memory had then,
        whatever it has by now. Raises ``ModelNotFound`` and
        ``InvalidRequest`` when the registry has changed so much that it cannot be carried out any more.
        """
        view = self.view(request.access)
        snapshot = view.seen
        request, target = with_effort(request, resolve(request.model, snapshot, request.access))
        strategy = target.strategy
        gone = [name for name in (*decision.selected, aggregator_expert) if name is not None and name not in snapshot.experts]
        if gone:
            raise InvalidRequest(f"the expert {gone[0]!r}, which this request was routed to, was removed meanwhile: ask again")
        deadline = Deadline.after(self._deadline(request, strategy).remaining_s + wait_s, clock=self._clock)
        options = _mode_options(request, strategy)
        if decision.cascade is not None:
            if (judge := decision.cascade.judge_expert) is not None and judge not in snapshot.experts:
                raise InvalidRequest(f"the expert {judge!r}, which judges this cascade, was removed meanwhile: ask again")
            # The stages that were planned, however many calls that takes: they were counted then.
            ledger = BudgetLedger(max_calls=self._limits.max_calls)
            context = AggregationContext(request, strategy, decision, snapshot, lambda _: False, None, options, deadline)
            return _made(context, self._limits.max_calls, ledger, view)
        num_calls = len(decision.selected) + (aggregator_expert is not None)
        if in_waves:
            num_calls = self._max_calls(request, strategy) - decision.num_calls
        known = {aggregator_expert}
        if in_waves:
            known |= {scored.expert_id for scored in decision.considered} | set(experts_in_options(options).values())
        fixed = replace(request, options=replace(request.options, aggregator_expert=aggregator_expert))
        context = AggregationContext(
            fixed, strategy, decision, snapshot, lambda card: card.id in known, _AS_ROUTED, options, deadline, recalled=recalled
        )
        return _made(context, num_calls, BudgetLedger(max_calls=num_calls), view)

    def _deadline(self, request: ChatRequest, strategy: Strategy) -> Deadline:
        return Deadline.after(min(request.options.timeout_s or strategy.timeout_s, self._limits.max_timeout_s), clock=self._clock)

    def _max_calls(self, request: ChatRequest, strategy: Strategy) -> int:
        return min(request.options.max_calls or strategy.max_calls, strategy.max_calls, self._limits.max_calls)

    def _only(self, card: ExpertCard, check: Check) -> Eligibility:
        """The expert that was asked for by name: role and declared capabilities are the caller's own affair."""
        if self._directory.health_of(card.id) is HealthState.OPEN:
            why = "unhealthy: its last calls failed, it is tried again after the cool-down"
            raise NoEligibleExpert(f"the expert {card.id} is {why}", reasons={card.id: why})
        if (size := fewest_tokens(check.letters, card)) > card.context_length:
            raise ContextTooLong(
                f"this model's maximum context length is {card.context_length} tokens, and the conversation needs about {size} at least: "
                "shorten it, or ask an expert with a longer context",
                param="messages",
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
        threshold = rule.threshold if kind == rule.kind else None  # one kind's threshold says nothing of another's
        return PickRule.of(kind, min(options.k or rule.k, self._limits.max_experts), threshold)

    def _worth_asking(
        self, decision: RoutingDecision, request: ChatRequest, strategy: Strategy, snapshot: RegistrySnapshot
    ) -> RoutingDecision:
        """*decision* without experts that need not be asked, or that have no room. A caller who says how many wants so many, unless there
        is no room for them."""
        options, accuracy, shed_from, load = request.options, strategy.alone_from_accuracy, strategy.shed_from_load, self._load
        by_itself = options.k is not None or options.pick is not None
        if accuracy is not None and not by_itself and _mode_name(request, strategy) == DEFAULT_MODE:
            decision = without_overcalling(decision, snapshot, accuracy)
        if shed_from is not None and load is not None:
            decision = without_the_overloaded(decision, lambda expert_id: _load_of(snapshot.experts[expert_id], load), shed_from)
        return decision

    def _circumstances(self, request: ChatRequest) -> Circumstances:
        load, history, session = self._load, self._history, request.session
        found = UNKNOWN_CIRCUMSTANCES
        if load is not None:
            found = replace(found, load=lambda card: _load_of(card, load))
        if history is not None and session is not None:
            found = replace(found, session_shares=lambda: history.shares(session))
        return found


def _made(context: AggregationContext, max_calls: int, ledger: BudgetLedger, view: View, *, num_stand_ins: int = 0) -> Prepared:
    """The mode that *context* leads to, ready to run. A cascade has asked those who would stand in."""
    request, strategy, decision = context.request, context.strategy, context.decision
    if decision.cascade is not None:
        ladder = make_ladder(
            request, decision, decision.cascade, context.snapshot.experts,
            deadline=context.deadline, max_calls=max_calls, again=context.again, prompts=strategy.prompts,
        )  # fmt: skip
        planned, mode = as_laddered(decision, ladder, max_calls), cast(Mode, Cascade(ladder))
    else:
        planned, mode = mode_named(_mode_name(request, strategy)).make(context, _aggregator(request, strategy), max_calls)
    if planned is not decision:
        context = replace(context, decision=planned)
    return Prepared(request, context, mode, context.deadline, ledger, view, num_stand_ins if decision.cascade is None else 0)


def _load_of(card: ExpertCard, load: Load) -> float:
    """Calls that run and wait, against what *card* takes at once."""
    return (load.in_flight(card.id) + load.queued(card.id)) / max(1, card.max_in_flight)


def _mode_name(request: ChatRequest, strategy: Strategy) -> str:
    return request.options.mode or strategy.mode


def _mode_options(request: ChatRequest, strategy: Strategy) -> Mapping[str, Any]:
    """The strategy's options with the request's over them. Another mode would not understand them."""
    given = request.options.mode_options
    if given is None and request.options.mode is None:
        return strategy.mode_options
    stored = strategy.mode_options if _mode_name(request, strategy) == strategy.mode else {}
    return {**stored, **(given or {})}


def _budget(request: ChatRequest, strategy: Strategy) -> Budget:
    return strategy.budget if request.options.budget is None else strategy.budget.within(request.options.budget)


def _check_options_for_one(card: ExpertCard, request: ChatRequest, snapshot: RegistrySnapshot, check: Check) -> None:
    """Raise ``InvalidRequest`` for options that mean nothing, or forbid it, when *card* was asked for by its id."""
    options = request.options
    choices = {
        "router": options.router is not None,
        "router_options": options.router_options is not None,
        "boost": bool(options.boost),
        "price_weight": options.price_weight is not None,
        "load_weight": options.load_weight is not None,
        "session_weight": options.session_weight is not None,
        "pick": options.pick is not None,
        "k": options.k is not None and options.k != 1,
        "mode": options.mode is not None,
        "mode_options": options.mode_options is not None,
        "quorum": options.quorum is not None,
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


def _adjustments(request: ChatRequest, strategy: Strategy, snapshot: RegistrySnapshot) -> RoutingAdjustments:
    """The strategy's with the request's over them. Raises ``InvalidRequest`` for a boost of who is not there."""
    options, given = request.options, {}
    for name in ("price_weight", "load_weight", "session_weight"):
        if (value := getattr(options, name)) is not None:
            given[name] = value
    if options.boost:
        check_names(tuple(options.boost), request, snapshot, param="consilium.boost")
        given["boost"] = {**strategy.adjustments.boost, **options.boost}
    return replace(strategy.adjustments, **given) if given else strategy.adjustments


def _with(decision: RoutingDecision, name: str, told: Callable[[], object]) -> Mapping[str, Any]:
    return {**decision.detail, name: told()}


def _told_recalled(recalled: Recollection) -> object:
    return dict(recalled.told)


def _told(adjustments: RoutingAdjustments) -> dict[str, object]:
    """What moves scores, in JSON values."""
    told = {
        "boost": dict(adjustments.boost),
        "price_weight": adjustments.price_weight,
        "load_weight": adjustments.load_weight,
        "session_weight": adjustments.session_weight,
    }
    return {name: value for name, value in told.items() if value}


def _router_options(request: ChatRequest, strategy: Strategy, router: Router, snapshot: RegistrySnapshot) -> Mapping[str, Any]:
    """The strategy's options with the request's over them. Another router than the strategy's would not understand its options.

    Raises ``InvalidRequest`` for what the router does not take, as a field of the request.
    """
    stored = strategy.router_options if router.name == strategy.router else {}
    given = request.options.router_options
    if given is None:
        return stored
    for option, expert_id in experts_in_options(given).items():
        check_names([expert_id], request, snapshot, param=f"consilium.router_options.{option}")
    options = {**stored, **given}
    try:
        router.check_options(options)
    except InvalidRequest as error:
        field = f"consilium.{error.param}" if error.param and error.param.startswith("router_options") else "consilium.router_options"
        raise InvalidRequest(f"{field}: {error.message}", param=field) from error
    return options


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


def _check_mode(request: ChatRequest, strategy: Strategy, snapshot: RegistrySnapshot) -> None:
    """Raise ``InvalidRequest`` for an unknown mode, and for options that neither it nor the aggregator takes."""
    options = request.options
    mode = mode_named(_mode_name(request, strategy))
    if options.mode_options is None:
        return
    for option, expert_id in experts_in_options(options.mode_options).items():
        check_names([expert_id], request, snapshot, param=f"consilium.mode_options.{option}")
    check_options(options.mode_options, {**mode.options, **_aggregator(request, strategy).options}, field="consilium.mode_options")
