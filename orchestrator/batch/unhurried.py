"""The directory as it will be: every expert is well."""

from __future__ import annotations

from domain.experts import HealthState
from domain.plan import Outcome
from domain.registry import RegistrySnapshot
from orchestrator.ports import Directory


class Unhurried:
    """``Directory`` for lines that nobody could answer at this moment. A batch's calls are made later, and wait for circuits to close:
    whether an expert can be called now says nothing about them. Satisfies ``orchestrator.ports.Directory``."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def snapshot(self) -> RegistrySnapshot:
        return self._directory.snapshot()

    def health_of(self, expert_id: str) -> HealthState:  # noqa: ARG002  # the port's
        return HealthState.CLOSED

    def begin_call(self, expert_id: str) -> int | None:
        return self._directory.begin_call(expert_id)

    def record(self, outcome: Outcome, *, call: int | None = None) -> None:
        self._directory.record(outcome, call=call)
