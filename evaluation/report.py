"""Accuracy tables: for the terminal (rich), for files and pipes (plain text), and as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from domain.skills import AggregatorProfile
from evaluation.summary import Accuracy, ExpertSummary

if TYPE_CHECKING:
    import rich.table


@dataclass(frozen=True, slots=True)
class Table:
    """Text cells under column names; the first *num_left* columns are left-aligned, the others right-aligned."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_left: int = 1

    def plain(self) -> str:
        """Aligned text with a rule below the header, no trailing spaces."""
        widths = [max(len(cell) for cell in column) for column in zip(self.columns, *self.rows, strict=True)]

        def line(cells: Sequence[str]) -> str:
            sized = zip(cells, widths, strict=True)
            padded = (f"{cell:<{width}}" if index < self.num_left else f"{cell:>{width}}" for index, (cell, width) in enumerate(sized))
            return "  ".join(padded).rstrip()

        rule = "-" * len(line(tuple("x" * width for width in widths)))
        return "\n".join([*([self.title] if self.title else []), line(self.columns), rule, *(line(row) for row in self.rows)])

    def rich(self) -> rich.table.Table:
        """The same for ``rich.print``; brackets in cells are text, not markup."""
        from rich.markup import escape
        from rich.table import Table as RichTable

        table = RichTable(title=self.title or None, title_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(escape(column), justify="left" if index < self.num_left else "right")
        for row in self.rows:
            table.add_row(*(escape(cell) for cell in row))
        return table


def percent(accuracy: Accuracy | None, *, interval: bool = False) -> str:
    """``93.3``, or ``93.3 [88.1–96.4]`` with the 95 % Wilson interval; ``–`` when nothing was answered."""
    if accuracy is None or accuracy.share is None:
        return "–"
    shown = f"{accuracy.share * 100:.1f}"
    low, high = accuracy.interval
    return f"{shown} [{low * 100:.1f}–{high * 100:.1f}]" if interval else shown


def accuracy_table(summaries: Mapping[str, ExpertSummary], *, title: str = "Accuracy, % right with 95 % interval") -> Table:
    """One row per expert, best first: overall accuracy, how many questions, how many failed, and why it was given up."""
    ordered = sorted(summaries.values(), key=lambda summary: (-(summary.overall.share or 0.0), summary.expert_id))
    rows = tuple(
        (s.expert_id, percent(s.overall, interval=True), str(s.overall.num_answered), str(s.num_failed), s.stopped or "") for s in ordered
    )
    return Table(title, ("expert", "overall", "answered", "failed", "given up"), rows)


def skill_table(summaries: Mapping[str, ExpertSummary], *, title: str = "Accuracy per skill, % right with 95 % interval") -> Table:
    """One row per expert and skill, the expert's best skills first."""
    rows = []
    for summary in summaries.values():
        ordered = sorted(summary.by_skill.items(), key=lambda item: (-(item[1].share or 0.0), item[0]))
        rows += [(summary.expert_id, skill, percent(count, interval=True), str(count.num_answered)) for skill, count in ordered]
    return Table(title, ("expert", "skill", "accuracy", "answered"), tuple(rows), num_left=2)


def aggregator_table(
    profiles: Mapping[str, AggregatorProfile], *, title: str = "Right answers found among one right and two wrong, %"
) -> Table:
    """One row per aggregator, best first: overall with interval, then every category."""
    categories = sorted({category for profile in profiles.values() for category in profile.by_category})
    ordered = sorted(profiles.values(), key=lambda profile: (-profile.overall.accuracy(), profile.expert_id))
    rows = tuple(
        (p.expert_id, percent(Accuracy.of(p.overall), interval=True), *(_category(p, category) for category in categories)) for p in ordered
    )
    return Table(title, ("aggregator", "overall", *categories), rows)


def _category(profile: AggregatorProfile, category: str) -> str:
    count = profile.by_category.get(category)
    return percent(Accuracy.of(count) if count else None)


def accuracy_json(accuracy: Accuracy) -> dict[str, Any]:
    """``{num_answered, num_correct, accuracy, low, high}``; shares in [0, 1], ``accuracy`` null when nothing was answered."""
    low, high = accuracy.interval
    return {
        "num_answered": accuracy.num_answered,
        "num_correct": accuracy.num_correct,
        "accuracy": accuracy.share,
        "low": low,
        "high": high,
    }


def summaries_json(summaries: Mapping[str, ExpertSummary]) -> list[dict[str, Any]]:
    """One object per expert: ``overall``, ``by_skill``, ``by_category``, ``num_failed``, ``stopped``."""
    return [
        {
            "expert": summary.expert_id,
            "overall": accuracy_json(summary.overall),
            "by_skill": {skill: accuracy_json(count) for skill, count in summary.by_skill.items()},
            "by_category": {category: accuracy_json(count) for category, count in summary.by_category.items()},
            "num_failed": summary.num_failed,
            "stopped": summary.stopped,
        }
        for summary in summaries.values()
    ]
