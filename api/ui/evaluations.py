"""Evaluations that are started from a page: run behind it, one at a time, their reports kept as files in the data dir.

Reports are JSON as ``consilium eval … --json`` writes it, so one that was made on the command line is shown as well when it lies there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api.ui.rest import Json, Refused, Rest, path_of
from domain.errors import ConsiliumError, NotFound, Overloaded
from domain.skills import LabelledQuestion

log = logging.getLogger(__name__)

FOLDER = "reports"
MAX_REPORTS = 200
"""Of one list: the newest."""
MAX_REPORT_BYTES = 20_000_000
NEAR = 0.9
"""Overlap of letters from which two questions are one (``consilium eval answers``)."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What to evaluate."""

    name: str
    questions: Sequence[LabelledQuestion]
    strategies: Sequence[str] | None
    """None: every enabled one."""
    calls: int
    limit: int | None
    concurrency: int


@dataclass(slots=True)
class Run:
    """One evaluation of this process."""

    name: str
    began_at: float
    stage: str = "reading"
    done: int = 0
    total: int = 0
    error: str | None = None
    report: str | None = None
    """Its id, when it is done."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def is_running(self) -> bool:
        return self.task is not None and not self.task.done()

    def note(self, stage: str, done: int, total: int) -> None:
        self.stage, self.done, self.total = stage, done, total


class Evaluations:
    """The reports in *data_dir*, and the run that adds the next."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER
        self._summaries: dict[Path, tuple[float, Json | None]] = {}
        """What was read of each file, and when it was changed last: reports are large, and a list needs a line of each."""
        self.run: Run | None = None

    async def newest(self) -> list[Json]:
        """The newest reports, each with its id, title, and the row of its best strategy or router."""
        return await asyncio.to_thread(self._list)

    async def get(self, report_id: str) -> Json:
        """Raises ``NotFound``."""
        return await asyncio.to_thread(self._read, report_id)

    def start(self, rest: Rest, asked: Asked) -> Run:
        """Begin. Raises ``Overloaded`` while one runs."""
        if self.run is not None and self.run.is_running:
            raise Overloaded("an evaluation runs already: wait for it, or stop it", retry_after_s=5.0)
        self.run = run = Run(asked.name, time.time())
        run.task = asyncio.create_task(self._carry_out(run, rest, asked), name="evaluation")
        return run

    async def stop(self) -> None:
        """End the run, if there is one; answers that it has are lost."""
        if self.run is not None and self.run.task is not None:
            self.run.task.cancel()
            await asyncio.gather(self.run.task, return_exceptions=True)

    async def _carry_out(self, run: Run, rest: Rest, asked: Asked) -> None:
        try:
            report = await _report(run, rest, asked)
            run.report = await asyncio.to_thread(self._write, asked.name, report)
        except asyncio.CancelledError:
            run.error = "stopped"
            raise
        except (ConsiliumError, Refused) as error:
            run.error = str(error)
        except Exception:  # the page says that it failed, the log why
            log.exception("the evaluation %r failed", asked.name)
            run.error = "a fault of the service; the log has the details"

    def _list(self) -> list[Json]:
        with contextlib.suppress(FileNotFoundError):
            changed = {file: file.stat().st_mtime for file in self._folder.glob("*.json")}
            newest = sorted(changed, key=lambda file: -changed[file])[:MAX_REPORTS]
            known = self._summaries
            self._summaries = {
                file: known[file] if file in known and known[file][0] == changed[file] else (changed[file], _summary(file))
                for file in newest
            }
            return [told for _, told in self._summaries.values() if told is not None]
        return []

    def _read(self, report_id: str) -> Json:
        if not _NAME.fullmatch(report_id):
            raise NotFound(f"there is no report {report_id[:40]!r}")
        found = _load(self._folder / f"{report_id}.json")
        if found is None:
            raise NotFound(f"there is no report {report_id!r} (any more)")
        return found

    def _write(self, name: str, report: Json) -> str:
        self._folder.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "report"
        report_id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{stem}"
        handle, partial = tempfile.mkstemp(dir=self._folder, suffix=".part")
        with os.fdopen(handle, "w") as file:
            json.dump(report, file, allow_nan=False)
        Path(partial).replace(self._folder / f"{report_id}.json")
        return report_id


async def _report(run: Run, rest: Rest, asked: Asked) -> Json:
    from api.answer_evaluation import Known, ServiceAsker, chosen_cards, comparison_of, spread, unseen
    from evaluation.answers.asking import Questioner
    from evaluation.answers.comparison import AnswersOptions
    from evaluation.answers.replies import ReplyLog
    from evaluation.comparison.report import as_json
    from evaluation.graders import Grader

    rest = rest.apart()  # the page that began it is answered long before the end
    known = await Known.read(lambda name: _rows(rest, name))
    run.note("leaving out what the service was measured on", 0, len(asked.questions))
    kept, duplicates = await asyncio.to_thread(unseen, asked.questions, known.asked, NEAR)
    asker = ServiceAsker(lambda body: rest.send("POST", "/v1/chat/completions", body), Refused)
    comparison = comparison_of(
        known,
        spread(kept, asked.limit),
        questioner=Questioner(asker, ReplyLog(None), Grader(), asked.concurrency, run.note),
        candidates=chosen_cards(known.cards, None),
        strategies=asked.strategies,
        options=AnswersOptions(calls=(asked.calls,)),
        settings={"name": asked.name},
        duplicates=duplicates,
    )
    report: Json = as_json(await comparison.execute())
    return {**report, "title": asked.name}


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


def _load(file: Path) -> Json | None:
    """A report; None for a file that is none."""
    try:
        if file.stat().st_size > MAX_REPORT_BYTES:
            return None
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("rows"), list) else None


def _summary(file: Path) -> Json | None:
    found = _load(file)
    if found is None or not _NAME.fullmatch(file.stem):
        return None
    ways = [row for row in found["rows"] if row.get("kind") in {"strategy", "router"}]
    best = max(ways, key=lambda row: row.get("accuracy") or 0.0, default=None)
    return {
        "id": file.stem,
        "title": found.get("title", file.stem),
        "at": file.stat().st_mtime,
        "num_questions": found.get("num_questions", 0),
        "num_experts": len(found.get("expert_ids") or ()),
        "best": best,
    }


def compared(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Json]:
    """The ways that stand in either report, with both rows and the difference of their accuracies. Pure."""
    rows = [{row["name"]: row for row in report["rows"]} for report in (one, other)]
    names = list(dict.fromkeys([*rows[0], *rows[1]]))
    found = []
    for name in names:
        first, second = rows[0].get(name), rows[1].get(name)
        known = [row["accuracy"] for row in (first, second) if row is not None and row.get("accuracy") is not None]
        found.append({"name": name, "one": first, "other": second, "difference": known[1] - known[0] if len(known) == 2 else None})
    return found
