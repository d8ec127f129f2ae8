"""Every call passes here: it respects the expert's circuit and tells it how the call ended."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from domain.chat import Chunk
from domain.errors import ExpertError, ExpertUnavailable
from domain.plan import Candidate, ExpertCall, ExpertFailure
from orchestrator.ports import Directory, Workers


class GuardedWorkers:
    """``Workers`` whose calls keep the directory's health up to date.

    An expert whose circuit is open is not called (``ExpertUnavailable``); of a half-open one, one call at a time is the
    trial. A call that is cancelled, or closed early, says nothing about the expert. Each outcome is recorded under its call's
    number, so that a call from before the circuit opened cannot end somebody else's trial.
    """

    def __init__(self, workers: Workers, directory: Directory) -> None:
        self._workers, self._directory = workers, directory

    async def complete(self, call: ExpertCall) -> Candidate:
        number = self._enter(call)
        began = time.perf_counter()
        try:
            candidate = await self._workers.complete(call)
        except ExpertError as error:
            self._directory.record(failure_of(call, error, time.perf_counter() - began), call=number)
            raise
        except BaseException:
            self._directory.record(_no_verdict(call), call=number)
            raise
        self._directory.record(candidate, call=number)
        return candidate

    async def stream(self, call: ExpertCall) -> AsyncIterator[Chunk]:
        number = self._enter(call)
        began = time.perf_counter()
        source = self._workers.stream(call)
        try:
            async for chunk in source:
                yield chunk
        except ExpertError as error:
            self._directory.record(failure_of(call, error, time.perf_counter() - began), call=number)
            raise
        except BaseException:
            self._directory.record(_no_verdict(call), call=number)
            raise
        else:
            self._directory.record(Candidate(call.expert.id, (), latency_s=time.perf_counter() - began), call=number)
        finally:
            # A stream that is given up must let go of the expert now, not when it is collected.
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

    def _enter(self, call: ExpertCall) -> int:
        number = self._directory.begin_call(call.expert.id)
        if number is None:
            raise ExpertUnavailable("its last calls failed; it is tried again after the cool-down")
        return number


def failure_of(call: ExpertCall, error: ExpertError, latency_s: float) -> ExpertFailure:
    """*error* as data."""
    return ExpertFailure(call.expert.id, error.code, error.message, latency_s, error.expert_at_fault, error.retry_after_s, error.param)


def _no_verdict(call: ExpertCall) -> ExpertFailure:
    return ExpertFailure(call.expert.id, "cancelled", "given up", expert_at_fault=False)
