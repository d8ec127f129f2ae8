"""Reports of evaluations: files of JSON in the data dir, as ``consilium eval … --json`` writes them, so that one which was made on the
command line is shown as well when it lies there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from domain.errors import NotFound

Json = dict[str, Any]

FOLDER = "reports"
MAX_REPORTS = 200
"""Of one list: the newest."""
MAX_REPORT_BYTES = 20_000_000
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_BEST = ("name", "accuracy", "cost")


class Reports:
    """Those in *data_dir*; every process that shares it sees the same."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER
        self._summaries: dict[Path, tuple[float, Json | None]] = {}
        """What was read of each file, and when it was changed last: reports are large, and a list needs a line of each."""

    async def newest(self) -> list[Json]:
        """A line for each of the newest: its id, name, moment, sizes, and the row of its best strategy or router."""
        return await asyncio.to_thread(self._list)

    async def get(self, report_id: str) -> tuple[Json, Json]:
        """The line of one, and the whole. Raises ``NotFound``."""
        return await asyncio.to_thread(self._read, report_id)

    async def add(self, report_id: str, report: Json) -> None:
        """Keep *report*. It is there whole or not at all."""
        await asyncio.to_thread(self._write, report_id, report)

    async def delete(self, report_id: str) -> None:
        """Raises ``NotFound``."""
        await asyncio.to_thread(self._remove, report_id)

    def _list(self) -> list[Json]:
        changed: dict[Path, float] = {}
        for file in self._folder.glob("*.json"):
            with contextlib.suppress(OSError):  # removed meanwhile, or a link that leads nowhere
                changed[file] = file.stat().st_mtime
        newest = sorted(changed, key=lambda file: -changed[file])[:MAX_REPORTS]
        known = self._summaries
        summaries = {
            file: known[file] if file in known and known[file][0] == at else (at, _summary_in(file, at))
            for file, at in ((file, changed[file]) for file in newest)
        }
        self._summaries = summaries
        return [told for _, told in summaries.values() if told is not None]

    def _read(self, report_id: str) -> tuple[Json, Json]:
        file = self._file(report_id)
        try:
            changed_at, found = file.stat().st_mtime, _load(file)
        except OSError:
            found = None
        if found is None:
            raise NotFound(f"there is no evaluation {report_id!r} (any more)")
        return _summary(file.stem, changed_at, found), found

    def _write(self, report_id: str, report: Json) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=self._folder, suffix=".part")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(report, file, allow_nan=False)
            Path(partial).replace(self._file(report_id))
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise

    def _remove(self, report_id: str) -> None:
        try:
            self._file(report_id).unlink()
        except FileNotFoundError:
            raise NotFound(f"there is no evaluation {report_id!r} (any more)") from None

    def _file(self, report_id: str) -> Path:
        if not _ID.fullmatch(report_id):
            raise NotFound(f"there is no evaluation {report_id[:40]!r}")
        return self._folder / f"{report_id}.json"


def id_for(name: str, at: float) -> str:
    """Of a report of that *name*, begun at that moment (seconds since the epoch)."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "report"
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(at))}-{stem}"


def _load(file: Path) -> Json | None:
    """A report; None for a file that is none."""
    try:
        if file.stat().st_size > MAX_REPORT_BYTES:
            return None
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return found if _is_report(found) else None


def _is_report(found: Any) -> bool:
    """Whether lists and pages can show it: anybody who can write to the data dir may have put it there."""
    if not isinstance(found, dict) or not isinstance(rows := found.get("rows"), list):
        return False
    if not isinstance(found.get("title", ""), str) or not isinstance(found.get("expert_ids", []), list):
        return False
    if not _is_number(found.get("num_questions", 0)):
        return False
    return all(
        isinstance(row, dict) and isinstance(row.get("name"), str) and all(_is_number(row.get(name)) for name in ("accuracy", "cost"))
        for row in rows
    )


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _summary_in(file: Path, at: float) -> Json | None:
    found = _load(file) if _ID.fullmatch(file.stem) else None
    return None if found is None else _summary(file.stem, at, found)


def _summary(report_id: str, at: float, report: Json) -> Json:
    ways = [row for row in report["rows"] if row.get("kind") in {"strategy", "router"}]
    best = max(ways, key=lambda row: row.get("accuracy") or 0.0, default=None)
    return {
        "id": report_id,
        "name": report.get("title") or report_id,
        "created_at": at,
        "num_questions": report.get("num_questions") or 0,
        "num_experts": len(report.get("expert_ids") or ()),
        "best": None if best is None else {name: best.get(name) for name in _BEST},
    }
