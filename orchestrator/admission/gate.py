"""Lets requests of keys with limits in, and settles what they used when they are over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from domain.chat import ChatRequest
from domain.errors import LimitReached
from domain.experts import ExpertCard
from domain.keys import ApiKey
from domain.limiting import Kind, Rule, Unit, Verdict
from domain.random_ids import random_id
from domain.registry import RegistrySnapshot
from domain.spending import NOTHING, Spent, cost
from domain.trace import Trace
from orchestrator.admission.estimate import Dearest, dearest, estimate
from orchestrator.admission.ports import Counters, Ledger
from orchestrator.admission.rules import Headers, counts_use, has_budgets, headers_of, refusal, rules_of
from orchestrator.effort import with_effort
from orchestrator.resolve import resolve
from orchestrator.visibility import Views

MAX_WORST = 256
"""Sets of rights for which the dearest expert is remembered, of one snapshot."""


class Refused(Exception):
    """A request may not run now; carries the error, and what its headers tell. Never leaves ``Gate.admit``'s callers."""

    def __init__(self, error: LimitReached, headers: Headers) -> None:
        super().__init__(error.message)
        self.error, self.headers = error, headers


class Grant:
    """What one request has taken. Settled once: by its trace, by ``spent``, or by ``close``."""

    __slots__ = ("_cards", "_counters", "_is_settled", "_key_id", "_lease", "_rules", "_settlements", "_slot", "headers")

    def __init__(
        self,
        counters: Counters,
        settlements: _Settlements,
        key_id: str,
        lease: str,
        *,
        rules: Sequence[Rule],
        verdict: Verdict,
        cards: Mapping[str, ExpertCard],
    ) -> None:
        self._counters, self._key_id, self._lease, self._rules, self._cards = counters, key_id, lease, rules, cards
        self._settlements = settlements
        self._slot, self._is_settled = verdict.slot, False
        self.headers = headers_of(rules, verdict)

    def settled(self, trace: Trace) -> None:
        """The request is over, and this is what it used. The books are made up before anything else is taken, and not while its caller
        waits for the answer."""
        self._settlements.add(self, trace)

    def settle(self, trace: Trace) -> None:
        """The same at once."""
        self.spent(spent_by(trace, self._cards))

    def spent(self, spent: Spent) -> None:
        """The request is over, and has used *spent*."""
        if self._is_settled:
            return
        self._is_settled = True
        costs = [_cost_of(rule, spent) for rule in self._rules]
        self._counters.settle(self._key_id, self._lease, self._rules, costs, self._slot)

    def close(self) -> None:
        """The request is over; what was not told was not used."""
        self.spent(NOTHING)


class _Settlements:
    """Of requests that have ended in this turn of the event loop: settled in the next one, or as soon as something is taken."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Grant, Trace]] = []

    def add(self, grant: Grant, trace: Trace) -> None:
        if not self._waiting:
            try:
                asyncio.get_running_loop().call_soon(self.settle)
            except RuntimeError:  # no loop, no next turn
                grant.settle(trace)
                return
        self._waiting.append((grant, trace))

    def settle(self) -> None:
        waiting, self._waiting = self._waiting, []
        for grant, trace in waiting:
            grant.settle(trace)


class Gate:
    """One process's. *now* (seconds since the epoch) says which day it is."""

    def __init__(self, counters: Counters, ledger: Ledger, *, now: Callable[[], float] = time.time) -> None:
        self._counters, self._ledger, self._now = counters, ledger, now
        self._views = Views()
        self._settlements = _Settlements()
        self._worst: dict[object, Dearest] = {}
        self._worst_of: RegistrySnapshot | None = None

    async def admit(self, key: ApiKey, request: ChatRequest, snapshot: RegistrySnapshot) -> Grant | None:
        """What *request* may use, taken; None for a key without limits. Raises ``Refused``, ``ModelNotFound`` as routing would,
        ``NotReady`` when the limits cannot be looked up, ``StorageError`` when what was spent cannot be."""
        limits = key.limits
        if limits.are_none:
            return None
        need = NOTHING
        if counts_use(limits):
            seen = self._views.view(snapshot, request.access).seen
            target = resolve(request.model, seen, request.access)
            worst = dearest([target.expert]) if target.expert is not None else self._dearest(seen, request.access)
            need = estimate(*with_effort(request, target), worst)
        return await self.take(key, need, snapshot.experts)

    async def take(self, key: ApiKey, need: Spent, cards: Mapping[str, ExpertCard] | None = None) -> Grant | None:
        """The same for a request that will use *need*."""
        self._settlements.settle()
        now = self._now()
        rules = rules_of(key.limits, need, now)
        if not rules:
            return None
        lease = random_id()
        verdict = await self._counters.take(key.id, lease, rules)
        if verdict.refused_by is not None:
            raise Refused(refusal(rules[verdict.refused_by], verdict.retry_after_s, now), headers_of(rules, verdict))
        return Grant(self._counters, self._settlements, key.id, lease, rules=rules, verdict=verdict, cards=cards or {})

    # --- what runs in the background, such as lines of batches: bounded by budgets alone, and charged when it has ended ---

    def is_spent(self, key: ApiKey) -> bool:
        """Whether a budget of the key is spent, as far as is known here: what others have spent in the last second may not be."""
        for rule in self._budgets(key, self._now()):
            spent = self._ledger.spent(key.id, rule.period) or NOTHING
            if _cost_of(rule, spent) >= rule.limit:
                return True
        return False

    def unhurried(self, key: ApiKey, request: ChatRequest, cards: Mapping[str, ExpertCard]) -> ChatRequest:
        """*request* as the key's, whose budgets will be charged with what it used."""

        def charge(trace: Trace) -> None:
            if rules := self._budgets(key, trace.started_at):
                self._counters.charge(key.id, spent_by(trace, cards), rules)

        return replace(request, access=key.rights, key_id=key.id, on_trace=charge)

    def _budgets(self, key: ApiKey, now: float) -> list[Rule]:
        return [rule for rule in rules_of(key.limits, NOTHING, now) if rule.kind is Kind.BUDGET] if has_budgets(key.limits) else []

    def _dearest(self, seen: RegistrySnapshot, access: object) -> Dearest:
        if seen.version != (self._worst_of.version if self._worst_of is not None else None) or len(self._worst) >= MAX_WORST:
            self._worst, self._worst_of = {}, seen
        found = self._worst.get(access)
        if found is None:
            found = self._worst[access] = dearest(seen.experts.values())
        return found


def spent_by(trace: Trace, cards: Mapping[str, ExpertCard]) -> Spent:
    """What all calls of *trace* used."""
    nano = 0
    for call in trace.calls:
        card = cards.get(call.expert_id)
        if card is not None:
            nano += cost(card.price, call.usage)
    return Spent(trace.usage.total_tokens, nano)


def _cost_of(rule: Rule, spent: Spent) -> int:
    match rule.unit:
        case Unit.REQUESTS:
            return 1
        case Unit.TOKENS:
            return spent.tokens
        case Unit.USD:
            return spent.nano_usd
