"""A report's charts. matplotlib is imported when the first is drawn; nothing here touches its global state."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.comparison.report import Confusion, GroupTable, Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#010203"
"""Stands for the page's text colour; replaced in SVG by ``currentColor``, so that a chart is read on light and dark alike."""
_PALETTE = ("#3b82c4", "#e08a2b", "#3fa06a", "#c4514f", "#8d6cc0", "#a0785a", "#d672b0", "#7f8c3a", "#36a7b3", "#8a8a8a")
_KIND_COLOURS = {"router": _PALETTE[0], "strategy": _PALETTE[0], "single": _PALETTE[9], "baseline": _PALETTE[1]}
_MAX_CELLS = 40
"""Rows or columns of a heat map whose cells still hold a number."""
_MAX_GROUPS = 40


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture."""

    name: str
    """The file's name without its ending."""
    title: str
    figure: Figure

    def png(self) -> bytes:
        """On white."""
        out = io.BytesIO()
        self.figure.savefig(out, format="png", dpi=144, facecolor="white")
        return out.getvalue()

    def svg(self) -> str:
        """To stand in HTML: transparent, ink in the page's colour, without ids that another chart of the page could have too."""
        import matplotlib as mpl

        out = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": self.name, "svg.fonttype": "path"}):
            self.figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        text = out.getvalue()
        text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
        text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href").replace(_INK, "currentColor")
        for marked in ('id="', 'href="#', "url(#"):
            text = text.replace(marked, f"{marked}{self.name}-")
        return text


def charts(report: Report) -> Iterator[Chart]:
    """Every chart that the report has data for."""
    yield Chart("accuracy", "Accuracy with 95 % intervals", _accuracy(report))
    if any(math.isfinite(row.cost) for row in report.rows):
        yield Chart("cost_quality", f"Accuracy over cost ({report.unit})", _cost_quality(report))
    if report.coverage.experts:
        yield Chart("coverage", "What experts cover together", _coverage(report))
    for table in report.groups:
        if table.groups:
            yield Chart(f"by_{table.grouping}", f"Accuracy per {table.grouping}", _groups(table))
    if report.learning:
        yield Chart("learning_curve", "Share of the oracle gap closed over training questions", _learning(report))
    for number, confusion in enumerate(report.confusions):
        what = "Categories as routed" if confusion.kind == "categories" else "Experts that got each category"
        yield Chart(f"confusion_{number}", f"{what}: {confusion.name}", _confusion(confusion))


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_INK)
    axes.tick_params(colors=_INK, labelsize=8)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    return figure, axes


def _accuracy(report: Report) -> Figure:
    rows = sorted(report.rows, key=lambda row: row.accuracy)
    figure, axes = _figure(8, 0.8 + 0.26 * len(rows))
    for place, row in enumerate(rows):
        axes.barh(place, 100 * row.accuracy, color=_KIND_COLOURS.get(row.kind, _PALETTE[9]), height=0.7)
        if all(map(math.isfinite, row.interval)):
            low, high = (100 * abs(end - row.accuracy) for end in row.interval)
            axes.errorbar(100 * row.accuracy, place, xerr=[[low], [high]], color=_INK, linewidth=1, capsize=2)
    axes.set_yticks(range(len(rows)), [_short(row.name) for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("accuracy, %")
    return figure


def _cost_quality(report: Report) -> Figure:
    figure, axes = _figure(8, 5)
    curves = [row for row in report.rows if row.curve]
    points = [row for row in report.rows if not row.curve and math.isfinite(row.cost) and row.lambda_ is None]
    for row, colour in zip(curves, _cycle(), strict=False):
        line = sorted((p.cost, 100 * p.accuracy) for p in row.curve)
        only = "o" if len(set(line)) == 1 else None  # a line of one point is none to see
        axes.plot([c for c, _ in line], [a for _, a in line], color=colour, linewidth=1.4, marker=only, label=_short(row.name))
    right_half = max((row.cost for row in points), default=0.0) / 2
    named: dict[tuple[float, float], list[Row]] = {}
    for row in points:
        named.setdefault((round(row.cost, 9), round(row.accuracy, 9)), []).append(row)
    labelled: list[Row] = []
    for here in sorted(named.values(), key=lambda rows: rows[0].kind == "single"):
        _point(axes, here, on_the_left=here[0].cost > right_half, labelled=not _hides(here[0], labelled, 2 * right_half))
        labelled.append(here[0])
    if curves:
        axes.legend(fontsize=8, frameon=False, labelcolor=_INK, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set_xlabel(f"mean cost per question, {report.unit}")
    axes.set_ylabel("accuracy, %")
    axes.margins(0.08)
    return figure


def _hides(row: Row, labelled: Sequence[Row], max_cost: float) -> bool:
    """Whether the label of a single expert would stand on another one."""
    near = (abs(row.cost - other.cost) < 0.12 * max_cost and abs(row.accuracy - other.accuracy) < 0.03 for other in labelled)
    return row.kind == "single" and any(near)


def _point(axes: Axes, rows: Sequence[Row], *, on_the_left: bool, labelled: bool) -> None:
    """Ways that are worth and cost the same have one point, with all of their names."""
    row = rows[0]
    axes.plot(row.cost, 100 * row.accuracy, marker="o" if row.kind == "single" else "D", color=_KIND_COLOURS.get(row.kind), markersize=5)
    if not labelled:
        return
    axes.annotate(
        " = ".join(_short(one.name) for one in rows),
        (row.cost, 100 * row.accuracy),
        xytext=(-6 if on_the_left else 6, -9),
        textcoords="offset points",
        fontsize=7,
        color=_INK,
        ha="right" if on_the_left else "left",
    )


def _coverage(report: Report) -> Figure:
    experts = report.coverage.experts
    figure, axes = _figure(8, 0.8 + 0.3 * len(experts))
    places = range(len(experts) - 1, -1, -1)
    axes.barh(list(places), [100 * e.greedy_coverage for e in experts], color=_PALETTE[0], alpha=0.35, height=0.7, label="with those above")
    axes.barh(list(places), [100 * e.accuracy for e in experts], color=_PALETTE[0], height=0.4, label="alone")
    axes.set_yticks(list(places), [_short(e.expert_id) + (" (redundant)" if e.redundant else "") for e in experts])
    axes.set_xlabel("questions, %")
    axes.legend(fontsize=8, frameon=False, labelcolor=_INK, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _groups(table: GroupTable) -> Figure:
    groups, values = table.groups[:_MAX_GROUPS], table.accuracy[:_MAX_GROUPS]
    return _heat(groups, table.ways, [[100 * value for value in row] for row in values], "{:.0f}", vmin=0, vmax=100)


def _confusion(confusion: Confusion) -> Figure:
    rows = [[100 * count / max(1, sum(counts)) for count in counts] for counts in confusion.counts]
    return _heat(confusion.rows, confusion.columns, rows, "{:.0f}", vmin=0, vmax=100)


def _heat(
    rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]], shown: str, *, vmin: float, vmax: float
) -> Figure:
    figure, axes = _figure(2.6 + 0.5 * len(columns), 1.6 + 0.28 * len(rows))
    axes.imshow(values, cmap="Blues", aspect="auto", vmin=vmin, vmax=vmax)
    axes.set_xticks(range(len(columns)), [_short(name) for name in columns], rotation=40, ha="right")
    axes.set_yticks(range(len(rows)), [_short(name) for name in rows])
    if max(len(rows), len(columns)) <= _MAX_CELLS:
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                if math.isfinite(value):
                    dark = value > (vmin + vmax) / 2
                    axes.text(x, y, shown.format(value), ha="center", va="center", fontsize=7, color="white" if dark else "#222222")
    return figure


def _learning(report: Report) -> Figure:
    figure, axes = _figure(8, 4.5)
    for name, colour in zip(dict.fromkeys(point.name for point in report.learning), _cycle(), strict=False):
        points = [point for point in report.learning if point.name == name]
        axes.plot(
            [p.num_train for p in points], [100 * p.gap_closed for p in points], marker="o", markersize=3, color=colour, label=_short(name)
        )
    axes.axhline(0, color=_INK, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    sizes = sorted({point.num_train for point in report.learning})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("training questions")
    axes.set_ylabel("oracle gap closed, %")
    axes.legend(fontsize=8, frameon=False, labelcolor=_INK)
    return figure


def _cycle() -> Iterator[str]:
    while True:
        yield from _PALETTE


def _short(text: str) -> str:
    """*text* as a label: not read as mathematics, not longer than a label can be."""
    plain = text.replace("$", r"\$")
    return plain if len(plain) <= 34 else plain[:33] + "…"
