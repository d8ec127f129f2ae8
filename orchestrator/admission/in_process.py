"""Limits counted in this process. Budgets are read from the ledger, which all processes on one database share."""

from __future__ import annotations

import time
from collections.abc import Sequence

from domain.deadline import Clock
from domain.limiting import BUSY_RETRY_S, Kind, Rule, Unit, Verdict
from domain.spending import Spent
from orchestrator.admission.ports import Ledger
from orchestrator.admission.window import Window, ends_at, slot_of

MAX_KEYS = 10_000
"""Keys whose counts are kept; beyond them the idle ones are forgotten."""


class _Use:
    """One key's."""

    __slots__ = ("num_running", "reserved", "windows")

    def __init__(self) -> None:
        self.windows = {Unit.REQUESTS: Window(), Unit.TOKENS: Window()}
        self.reserved: dict[tuple[Unit, str], int] = {}
        """Of budgets, by requests that run."""
        self.num_running = 0

    def is_idle(self, slot: int) -> bool:
        return not self.num_running and not self.reserved and not any(window.used(slot) for window in self.windows.values())


class InProcessCounters:
    """Satisfies ``orchestrator.admission.ports.Counters``. *clock* is monotonic seconds."""

    def __init__(self, ledger: Ledger, *, clock: Clock = time.monotonic) -> None:
        self._ledger, self._clock = ledger, clock
        self._uses: dict[str, _Use] = {}

    async def take(self, key_id: str, lease: str, rules: Sequence[Rule]) -> Verdict:  # noqa: ARG002  # the port's: nobody else counts here
        for rule in rules:
            if rule.kind is Kind.BUDGET and self._ledger.spent(key_id, rule.period) is None:
                await self._ledger.load(key_id, rule.period)
        now = self._clock()
        slot, use = slot_of(now), self._use(key_id)
        left = [rule.limit - self._used(key_id, use, rule, slot) for rule in rules]
        for place, rule in enumerate(rules):
            if left[place] < rule.cost:
                window = use.windows[rule.unit] if rule.kind is Kind.WINDOW else None
                retry_s = BUSY_RETRY_S if window is None else max(0.0, window.free_at(left[place] - rule.cost) - now)
                resets = tuple(max(0.0, use.windows[r.unit].empty_at() - now) if r.kind is Kind.WINDOW else 0.0 for r in rules)
                return Verdict(place, retry_s, tuple(left), resets)
        reset_s = ends_at(slot) - now
        for place, rule in enumerate(rules):
            left[place] -= rule.cost
            match rule.kind:
                case Kind.WINDOW:
                    use.windows[rule.unit].add(slot, rule.cost)
                case Kind.BUDGET if rule.cost:
                    held = (rule.unit, rule.period)
                    use.reserved[held] = use.reserved.get(held, 0) + rule.cost
                case Kind.CONCURRENCY:
                    use.num_running += 1
        return Verdict(None, 0.0, tuple(left), (reset_s,) * len(rules), slot)

    def settle(self, key_id: str, lease: str, rules: Sequence[Rule], costs: Sequence[int], slot: int) -> None:  # noqa: ARG002
        use, now_slot = self._use(key_id), slot_of(self._clock())
        for rule, cost in zip(rules, costs, strict=True):
            match rule.kind:
                case Kind.WINDOW:
                    if cost != rule.cost:
                        use.windows[rule.unit].settle(slot, cost - rule.cost, now_slot)
                case Kind.BUDGET if rule.cost:  # what it has cost stands in the ledger from now on
                    held = (rule.unit, rule.period)
                    use.reserved[held] -= rule.cost
                    if not use.reserved[held]:
                        del use.reserved[held]
                case Kind.CONCURRENCY:
                    use.num_running -= 1

    def charge(self, key_id: str, spent: Spent, rules: Sequence[Rule]) -> None:
        """It stands in the ledger."""

    async def close(self) -> None:
        """Nothing waits here."""

    def _used(self, key_id: str, use: _Use, rule: Rule, slot: int) -> int:
        match rule.kind:
            case Kind.WINDOW:
                return use.windows[rule.unit].used(slot)
            case Kind.CONCURRENCY:
                return use.num_running
            case Kind.BUDGET:
                spent = self._ledger.spent(key_id, rule.period) or Spent()
                reserved = use.reserved.get((rule.unit, rule.period), 0)
                return reserved + (spent.nano_usd if rule.unit is Unit.USD else spent.tokens)

    def _use(self, key_id: str) -> _Use:
        use = self._uses.get(key_id)
        if use is None:
            if len(self._uses) >= MAX_KEYS:
                slot = slot_of(self._clock())
                self._uses = {known: use for known, use in self._uses.items() if not use.is_idle(slot)}
            use = self._uses[key_id] = _Use()
        return use
