"""A batch's progress on the terminal: lines, buckets, loads and the time that is left."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from api.cli.output import console

if TYPE_CHECKING:
    from orchestrator.batch.news import BatchNews

Show = Callable[["BatchNews"], None]


def batch_progress(*, quiet: bool) -> AbstractContextManager[Show]:
    """Give it every ``BatchNews`` inside the block. Drawn on stderr; *quiet* draws nothing."""
    return nullcontext(lambda _news: None) if quiet else _Bar()


class _Bar:
    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"),
            console=console(stderr=True),
        )  # fmt: skip
        self._task = self._progress.add_task("reading", total=None, told="")

    def __enter__(self) -> Show:
        self._progress.start()
        return self.show

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, news: BatchNews) -> None:
        if news.num_calls:
            done, total = news.num_calls_done, news.num_calls
        else:
            done, total = (news.num_routed if news.phase == "routing" else news.counts.total - news.counts.pending), news.counts.total
        self._progress.update(self._task, description=news.phase.value, completed=done, total=total or None, told=told(news))


def told(news: BatchNews) -> str:
    """What stands behind the bar."""
    parts = []
    if news.num_turns:
        parts += [
            f"bucket {min(news.num_turns_done + 1, news.num_turns)} of {news.num_turns}",
            f"{news.num_loads_done} of {news.num_loads} loads",
        ]
    if news.counts.failed:
        parts.append(f"{news.counts.failed} failed")
    if news.working:
        parts.append(" + ".join(news.working))
    if news.left_s is not None and news.phase == "running":
        minutes, seconds = divmod(round(news.left_s), 60)
        parts.append(f"about {minutes}:{seconds:02} left")
    return ", ".join(parts)
