"""Looking at a measurement until it is done, with a progress bar per expert."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from api.cli.output import console, note

if TYPE_CHECKING:
    from api.cli.client import ApiClient

_LOOK_EVERY_S = 0.25
"""Often enough for a bar that moves, seldom enough to cost nothing."""

Update = Callable[[dict[str, Any]], None]


async def follow(client: ApiClient, path: str, *, quiet: bool) -> dict[str, Any]:
    """The run at *path* when it no longer runs. Interrupted, it says how to go on; the run of a service elsewhere continues."""
    try:
        with _bars(quiet=quiet) as update:
            while True:
                run: dict[str, Any] = await client.get(path)
                update(run)
                if run["status"] != "running":
                    return run
                await asyncio.sleep(_LOOK_EVERY_S)
    except asyncio.CancelledError:
        note(_how_to_go_on(client, path))
        raise


def _how_to_go_on(client: ApiClient, path: str) -> str:
    kind, _, run_id = path.removeprefix("/admin/api/").partition("/")
    if kind == "aggregator-runs":  # kept only as a whole, by the process that runs it
        if client.is_local:
            return "interrupted; what was measured before stays as it was: the same command begins again"
        return f"{run_id} goes on at {client.where}; its end replaces what was measured before ('POST {path}/cancel' stops it)"
    if client.is_local:
        return f"interrupted; what is recorded stays: 'consilium profile run --resume {run_id}' goes on"
    return f"{run_id} goes on at {client.where}; 'consilium profile rollback {run_id}' ends it and takes it back"


def _bars(*, quiet: bool) -> AbstractContextManager[Update]:
    if quiet:
        return nullcontext(_say_nothing)
    return _Bars()


def _say_nothing(_run: dict[str, Any]) -> None: ...


class _Bars:
    """One bar per expert on stderr."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
            console=console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Update:
        self._progress.start()
        return self.update

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, run: dict[str, Any]) -> None:
        for told in run.get("progress", ()):
            expert = told["expert_id"]
            if expert not in self._tasks:
                self._tasks[expert] = self._progress.add_task(expert, total=told["num_total"], told="")
            self._show(expert, told["num_done"], told["num_correct"], told["num_failed"])
        for row in run.get("summary", ()):  # the last look comes when the run is over, and has the final counts
            overall = row["overall"]
            self._show(row["expert"], overall["num_answered"] + row["num_failed"], overall["num_correct"], row["num_failed"])

    def _show(self, expert: str, num_done: int, num_correct: int, num_failed: int) -> None:
        if expert not in self._tasks:
            return  # over before the first look: there is nothing to animate
        answered = num_done - num_failed
        right = f"{100 * num_correct / answered:.0f} % right" if answered else ""
        failed = f", {num_failed} failed" if num_failed else ""
        self._progress.update(self._tasks[expert], completed=num_done, told=right + failed)
