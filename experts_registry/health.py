"""The circuit of each expert: closed, open, half-open. Pure decisions in ``Circuit``; ``HealthBoard`` keeps one per expert.

A circuit opens after a few faults in a row, so that requests stop waiting for an expert that is down. After a cool-down one
call may try it; an answer closes the circuit, a fault opens it again for twice as long.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import count

from domain.deadline import Clock
from domain.experts import HealthState
from domain.plan import ExpertFailure, Outcome


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """When a circuit opens and for how long."""

    max_faults: int = 3
    """Faults in a row that open it: one may be chance, and each costs a user a wait."""
    cool_down_s: float = 15.0
    """Time until the first trial; a restarted server needs about this long."""
    max_cool_down_s: float = 120.0
    """The cool-down doubles with every failed trial up to this: an expert is found again within two minutes."""
    max_trial_s: float = 120.0
    """A trial whose outcome never comes (its caller went away) is forgotten after this, the default limit of one call."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """One expert's circuit. Values only: every change makes a new one."""

    num_faults: int = 0
    """In a row."""
    opened_at: float | None = None
    """When it opened last; None while it is closed."""
    cool_down_s: float = 0.0
    trial: int | None = None
    """The number of the call that is the running trial: no other call's end may be taken for the trial's."""
    trial_at: float | None = None
    """When the running trial began."""

    def state(self, now: float, policy: HealthPolicy) -> HealthState:
        """1. Never opened: closed. 2. Cooling down, or a trial is running: open. 3. A trial is due: half-open."""
        if self.opened_at is None:
            return HealthState.CLOSED
        if now < self.opened_at + self.cool_down_s:
            return HealthState.OPEN
        if self.trial_at is not None and now < self.trial_at + policy.max_trial_s:
            return HealthState.OPEN
        return HealthState.HALF_OPEN

    def after_fault(self, now: float, policy: HealthPolicy, call: int | None) -> Circuit:
        """1. Closed: one more fault, and open when they are enough. 2. Cooling down: a call that began before; no news.
        3. Cool-down over, but *call* is not the trial: it began before as well; no news, and the trial goes on.
        4. The trial failed, or a call without a number, which is made whatever the circuit says: open again for twice as long."""
        if self.opened_at is None:
            num_faults = self.num_faults + 1
            if num_faults < policy.max_faults:
                return replace(self, num_faults=num_faults)
            return Circuit(num_faults, opened_at=now, cool_down_s=policy.cool_down_s)
        if now < self.opened_at + self.cool_down_s:
            return self
        if call is not None and call != self.trial:
            return self
        cool_down_s = min(self.cool_down_s * 2, policy.max_cool_down_s)
        return Circuit(self.num_faults + 1, opened_at=now, cool_down_s=cool_down_s)

    def after_no_verdict(self, call: int | None) -> Circuit:
        """*call* ended without saying anything about the expert: if it was the trial, the next one may begin."""
        return self if call is None or call != self.trial else replace(self, trial=None, trial_at=None)


class HealthBoard:
    """The circuits of one process, in memory: what another replica cannot reach may be reachable from here."""

    def __init__(self, *, clock: Clock, policy: HealthPolicy | None = None) -> None:
        self._clock = clock
        self._policy = policy or HealthPolicy()
        self._circuits: dict[str, Circuit] = {}
        self._numbers = count(1)

    def state_of(self, expert_id: str) -> HealthState:
        """Reading changes nothing, so the UI and every request may look."""
        circuit = self._circuits.get(expert_id)
        return HealthState.CLOSED if circuit is None else circuit.state(self._clock(), self._policy)

    def begin_call(self, expert_id: str) -> int | None:
        """The number of a call to the expert that may begin now; None when none may. Of a half-open circuit it is the one trial;
        until its outcome is recorded under that number the circuit reads as open."""
        state = self.state_of(expert_id)
        if state is HealthState.OPEN:
            return None
        number = next(self._numbers)
        if state is HealthState.HALF_OPEN:
            self._circuits[expert_id] = replace(self._circuits[expert_id], trial=number, trial_at=self._clock())
        return number

    def record(self, outcome: Outcome, *, call: int | None = None) -> None:
        """Learn from *outcome*, of the call with the number that ``begin_call`` gave; None if it did not ask."""
        if not isinstance(outcome, ExpertFailure):
            self._circuits.pop(outcome.expert_id, None)  # closed, with nothing held against the expert
            return
        circuit = self._circuits.get(outcome.expert_id, Circuit())
        after = circuit.after_fault(self._clock(), self._policy, call) if outcome.expert_at_fault else circuit.after_no_verdict(call)
        if after == Circuit():
            self._circuits.pop(outcome.expert_id, None)
        else:
            self._circuits[outcome.expert_id] = after

    def forget(self, expert_ids: Collection[str]) -> None:
        """Start anew with experts that were changed or removed: what was learned is about what they were."""
        for expert_id in expert_ids:
            self._circuits.pop(expert_id, None)
