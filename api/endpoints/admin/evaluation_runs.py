"""Evaluations that run in the background of this process, one at a time; their reports are files (``api.endpoints.admin.reports``)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from api.endpoints.admin.reports import Reports, id_for
from api.rest import Json, Refused, Rest, path_of
from domain.errors import Conflict, ConsiliumError, NotReady, Overloaded, Unauthenticated
from domain.skills import LabelledQuestion

log = logging.getLogger(__name__)

MAX_REMEMBERED = 20
"""Evaluations that came to no report, which are kept to look at."""
NEAR = 0.9
"""Overlap of letters from which two questions are one (``consilium eval answers``)."""
_SAYS_NOTHING = frozenset({NotReady.code, Unauthenticated.code})


@dataclass(frozen=True, slots=True)
class Asked:
    """What to evaluate."""

    name: str
    questions: Sequence[LabelledQuestion]
    strategies: Sequence[str] | None
    """None: every enabled one."""
    calls: int
    """That votes and samples make."""
    limit: int | None
    """Questions at most; None: all."""
    max_in_flight: int


@dataclass(slots=True)
class Run:
    """One evaluation of this process."""

    id: str
    """Its report's."""
    name: str
    began_at: float
    num_questions: int
    stage: str = "reading"
    done: int = 0
    total: int = 0
    error: str | None = None
    """Why there is no report."""
    cancelled: bool = False
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def status(self) -> str:
        """``running``, ``finished``, ``cancelled`` or ``failed``."""
        if self.task is not None and not self.task.done():
            return "running"
        if self.cancelled:
            return "cancelled"
        return "failed" if self.error is not None else "finished"

    @property
    def is_running(self) -> bool:
        return self.status == "running"

    def note(self, stage: str, done: int, total: int) -> None:
        self.stage, self.done, self.total = stage, done, total


class Evaluations:
    """The reports in *data_dir*, and the run that adds the next."""

    def __init__(self, data_dir: Path) -> None:
        self.reports = Reports(data_dir)
        self._runs: dict[str, Run] = {}

    def without_report(self) -> list[Run]:
        """The one that runs, and those that came to nothing, oldest first."""
        return [run for run in self._runs.values() if run.status != "finished"]

    def find(self, evaluation_id: str) -> Run | None:
        """One that has no report (yet)."""
        run = self._runs.get(evaluation_id)
        return None if run is None or run.status == "finished" else run

    def start(self, rest: Rest, asked: Asked) -> Run:
        """Begin, asking the API by *rest*. Raises ``Overloaded`` while one runs."""
        if any(run.is_running for run in self._runs.values()):
            raise Overloaded("an evaluation runs already: wait for it, or cancel it", retry_after_s=5.0)
        now = time.time()
        run_id = id_for(asked.name, now)
        self._runs.pop(run_id, None)
        self._runs[run_id] = run = Run(run_id, asked.name, now, len(asked.questions))
        # What asked for it is answered long before the end.
        run.task = asyncio.create_task(self._carry_out(run, rest.apart(), asked), name=f"evaluate {run_id}")
        for old in [known.id for known in self._runs.values() if not known.is_running][:-MAX_REMEMBERED]:
            del self._runs[old]
        return run

    async def cancel(self, run: Run) -> None:
        """End it; answers that it has are lost. One that is over stays as it is."""
        if run.task is not None and not run.task.done():
            run.cancelled = True
            run.task.cancel()
            await asyncio.gather(run.task, return_exceptions=True)

    async def delete(self, evaluation_id: str) -> None:
        """Forget one, with its report. Raises ``NotFound``, and ``Conflict`` while it runs."""
        run = self.find(evaluation_id)
        if run is None:
            await self.reports.delete(evaluation_id)
        elif run.is_running:
            raise Conflict(f"the evaluation {evaluation_id!r} runs: cancel it first")
        self._runs.pop(evaluation_id, None)

    async def close(self) -> None:
        """End what runs."""
        for run in self.without_report():
            await self.cancel(run)

    async def _carry_out(self, run: Run, rest: Rest, asked: Asked) -> None:
        try:
            await self.reports.add(run.id, await _report(run, rest, asked))
        except (ConsiliumError, Refused) as error:
            run.error = str(error)
        except Exception:  # nobody awaits this task: who looks is told that it failed, the log why
            log.exception("the evaluation %r failed", asked.name)
            run.error = "a fault of the service; the log has the details"


async def _report(run: Run, rest: Rest, asked: Asked) -> Json:
    from api.answer_evaluation import Known, ServiceAsker, chosen_cards, comparison_of, spread, unseen
    from evaluation.answers.asking import Questioner
    from evaluation.answers.comparison import AnswersOptions
    from evaluation.answers.replies import ReplyLog
    from evaluation.comparison.report import as_json
    from evaluation.graders import Grader

    known = await Known.read(lambda name: _rows(rest, name))
    run.note("leaving out what the service was measured on", 0, len(asked.questions))
    kept, duplicates = await asyncio.to_thread(unseen, asked.questions, known.asked, NEAR)
    asker = ServiceAsker(partial(_asked, rest), Refused)
    comparison = comparison_of(
        known,
        spread(kept, asked.limit),
        questioner=Questioner(asker, ReplyLog(None), Grader(), asked.max_in_flight, run.note),
        candidates=chosen_cards(known.cards, None),
        strategies=asked.strategies,
        options=AnswersOptions(calls=(asked.calls,)),
        settings={"name": asked.name},
        duplicates=duplicates,
    )
    report: Json = as_json(await comparison.execute())
    return {**report, "title": asked.name}


async def _asked(rest: Rest, body: Json) -> Json:
    """A chat completion. Raises ``Refused``, which is an answer that failed, and ``NotReady`` where that says nothing about who was asked:
    the service is about to end, or the key does not work any more. A report of such answers would be wrong."""
    try:
        return await rest.send("POST", "/v1/chat/completions", body)
    except Refused as refused:
        if refused.code in _SAYS_NOTHING:
            raise NotReady(refused.message) from refused
        raise


async def _rows(rest: Rest, resource: str) -> list[Json]:
    """Every row of a list of the admin REST."""
    rows: list[Json] = []
    cursor = None
    while True:
        answer = await rest.get(path_of(resource), limit=1000, cursor=cursor)
        rows += answer["data"]
        cursor = answer["next"]
        if cursor is None:
            return rows
