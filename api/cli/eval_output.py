"""What evaluations write: files that are checked before the work begins, whole or not at all; and progress while it runs."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.failures import bad_input
from api.cli.output import console, note

if TYPE_CHECKING:
    from evaluation.comparison.report import Report

JsonOut = Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write the whole report as JSON.")]
CsvOut = Annotated[Path | None, typer.Option("--csv", metavar="OUT", help="Write the main table as CSV.")]
HtmlOut = Annotated[Path | None, typer.Option("--html", metavar="OUT", help="Write the report as one self-contained HTML page.")]
PlotsOut = Annotated[Path | None, typer.Option("--plots", metavar="DIR", help="Write the charts as PNG into this folder.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, and of the tables only the first.")]

Stage = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a report goes beside the terminal."""

    json: Path | None = None
    csv: Path | None = None
    html: Path | None = None
    plots: Path | None = None

    def check(self, *also: Path | None) -> None:
        """Make the folders. Raises ``CommandFailed`` for a place that cannot be written: now, and not after an hour's work."""
        for path in filter(None, (self.json, self.csv, self.html, *also)):
            if path.is_dir():
                raise bad_input(f"{path} is a folder: name a file")
            _make(path.parent)
        if self.plots is not None:
            if self.plots.is_file():
                raise bad_input(f"{self.plots} is a file: name a folder")
            _make(self.plots)

    def write(self, report: Report, *, extra: Mapping[str, Any] | None = None) -> None:
        """Everything that was asked for; *extra* joins the JSON."""
        from evaluation.comparison.report import as_json
        from evaluation.presentation.charts import charts
        from evaluation.presentation.page import page
        from evaluation.presentation.tables import as_csv

        if self.json is not None:
            document = {**as_json(report), **(extra or {})}
            write_text(self.json, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        if self.csv is not None:
            write_text(self.csv, as_csv(report))
        if self.html is not None:
            write_text(self.html, page(report))
        if self.plots is not None:
            for chart in charts(report):
                _write(self.plots / f"{chart.name}.png", chart.png())
        for path in filter(None, (self.json, self.csv, self.html, self.plots)):
            note(f"wrote {path}")


def show_report(report: Report, *, brief: bool) -> None:
    """The tables on stdout, what cannot be told and what was noticed on stderr."""
    from evaluation.presentation.tables import tables

    shown = list(tables(report, whole=False))
    print("\n\n".join(table.plain() for table in (shown[:1] if brief else shown)))
    dropped = {name.replace("_", " "): num for name, num in report.duplicates.items() if num}
    if dropped:
        note("duplicates dropped: " + ", ".join(f"{num} {name}" for name, num in dropped.items()))
    for missing in report.unavailable:
        note(f"{missing.name}: {missing.why}")
    for line in report.notes:
        note(line)


def write_text(path: Path, text: str) -> None:
    """All of it or nothing: a reader, or a kill, never meets half a file."""
    _write(path, text.encode())


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSONL."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def stages(*, quiet: bool) -> AbstractContextManager[Stage]:
    """A bar per stage on stderr; call it with the stage's name and how many of how many steps are done."""
    return nullcontext(lambda _name, _done, _of: None) if quiet else _Bars()


class _Bars:
    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console(stderr=True)
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Stage:
        self._progress.start()
        return self.show

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, name: str, done: int, of: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=of)
        self._progress.update(self._tasks[name], completed=done, total=of)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise bad_input(f"the folder {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise bad_input(f"the folder {folder} cannot be written")


def _write(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
