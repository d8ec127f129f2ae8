"""Accuracies as plain text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.summary import Accuracy


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


def percent(accuracy: Accuracy | None, *, interval: bool = False) -> str:
    """``93.3``, or ``93.3 [88.1–96.4]`` with the 95 % Wilson interval; ``–`` when nothing was answered."""
    if accuracy is None or accuracy.share is None:
        return "–"
    shown = f"{accuracy.share * 100:.1f}"
    low, high = accuracy.interval
    return f"{shown} [{low * 100:.1f}–{high * 100:.1f}]" if interval else shown


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
