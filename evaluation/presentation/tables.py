"""A report's tables: for the terminal, for HTML, and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence

from evaluation.comparison.report import Confusion, GroupTable, Report, Row
from evaluation.report import Table

_CSV_COLUMNS = (
    "name", "kind", "lambda", "accuracy", "low", "high", "above_best_single", "gap_closed", "gap_low", "gap_high", "regret", "cost",
    "relative_cost", "calls", "latency_ms", "curve_area", "equal_cost", "num_failed", "num_unknown",
)  # fmt: skip
_MAX_COLUMNS = 12
"""Ways side by side in one table by group; more are not read."""


def main_table(report: Report) -> Table:
    """Every way with its figures; columns that nobody has are left out."""
    has_cost = any(math.isfinite(row.cost) for row in report.rows)
    has_latency = any(math.isfinite(row.latency_ms) for row in report.rows)
    has_curve = any(row.curve for row in report.rows)
    columns = ["way", "kind", "accuracy [95 %]", "gap closed [95 %]", "regret"]
    columns += ["cost", "of best single"] if has_cost else []
    columns += ["curve area", "equal at"] if has_curve else []
    columns += ["calls"] + (["latency ms"] if has_latency else []) + (["failed"] if any(row.num_failed for row in report.rows) else [])
    columns += ["unknown"] if any(row.num_unknown for row in report.rows) else []
    rows = []
    for row in report.rows:
        cells = [row.name, row.kind, _with_interval(row.accuracy, row.interval), _gap(row), share(row.regret)]
        cells += [number(row.cost), share(row.relative_cost)] if has_cost else []
        cells += [number(row.area), share(row.equal_cost)] if has_curve else []
        cells += [f"{row.calls:.2f}"] + ([number(row.latency_ms)] if has_latency else [])
        cells += [str(row.num_failed)] if "failed" in columns else []
        cells += [str(row.num_unknown)] if "unknown" in columns else []
        rows.append(tuple(cells))
    unit = f"; cost in {report.unit}" if report.unit else ""
    return Table(f"{report.title}: {report.num_questions} questions{unit}", tuple(columns), tuple(rows), num_left=2)


def oracle_table(report: Report) -> Table:
    """How far each router stays behind the oracle, in % of all questions."""
    rows = tuple(
        (g.name, share(g.as_good), share(g.missed), share(g.hopeless), share(g.overpaid), share(g.regret), number(g.cost_regret))
        for g in report.oracle_gaps
    )
    return Table("Against the oracle", ("way", "as good", "missed", "hopeless", "overpaid", "regret", "cost above"), rows)


def coverage_table(report: Report) -> Table:
    """What experts cover together, in the order in which they add most."""
    rows = tuple(
        (str(e.greedy_rank), e.expert_id, share(e.accuracy), share(e.greedy_coverage), share(e.marginal_gain), "yes" if e.redundant else "")
        for e in report.coverage.experts
    )
    title = (
        f"Coverage: together {share(report.coverage.union)} %; {len(report.coverage.recommended)} of {len(rows)} experts reach 99 % of that"
    )
    return Table(title, ("order", "expert", "alone", "with those before", "lost without", "redundant"), rows, num_left=2)


def group_table(table: GroupTable) -> Table:
    """Accuracy per group; the first ways where there are many."""
    ways = table.ways[:_MAX_COLUMNS]
    rows = tuple(
        (group, str(num), *(share(value) for value in values[: len(ways)]))
        for group, num, values in zip(table.groups, table.num_questions, table.accuracy, strict=True)
    )
    return Table(f"Accuracy per {table.grouping}", (table.grouping, "questions", *ways), rows)


def confusion_table(confusion: Confusion) -> Table:
    """Counts; rows are categories as they are."""
    title = f"{confusion.name}: which expert got the questions of each category"
    if confusion.kind == "categories":
        title = f"{confusion.name}: categories as they are (rows) and as routed, {share(confusion.accuracy)} % right"
    rows = tuple((row, *(str(count) for count in counts)) for row, counts in zip(confusion.rows, confusion.counts, strict=True))
    return Table(title, ("category", *confusion.columns), rows)


def learning_table(report: Report) -> Table:
    """What more training questions bring."""
    rows = tuple((p.name, str(p.num_train), share(p.accuracy), share(p.gap_closed)) for p in report.learning)
    return Table("Learning curve", ("router", "training questions", "accuracy", "gap closed"), rows)


def tables(report: Report, *, whole: bool = True) -> Iterator[Table]:
    """All of them, the most important first; not *whole*: without who got which category's questions, which is long."""
    yield main_table(report)
    if report.oracle_gaps:
        yield oracle_table(report)
    if report.coverage.experts:
        yield coverage_table(report)
    yield from (group_table(table) for table in report.groups)
    if report.learning:
        yield learning_table(report)
    yield from (confusion_table(confusion) for confusion in report.confusions if whole or confusion.kind == "categories")


def as_csv(report: Report) -> str:
    """The main table with full figures, empty where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for row in report.rows:
        values: Sequence[float | None] = (
            row.accuracy, *row.interval, row.above_best_single, row.gap_closed, *row.gap_interval, row.regret, row.cost, row.relative_cost,
            row.calls, row.latency_ms, row.area, row.equal_cost,
        )  # fmt: skip
        figures = ["" if value is None or not math.isfinite(value) else f"{value:.6g}" for value in (row.lambda_, *values)]
        writer.writerow([_inert(row.name), row.kind, *figures, row.num_failed, row.num_unknown])
    return out.getvalue()


def share(value: float) -> str:
    """In per cent, without the sign; a dash where there is no figure."""
    return f"{100 * value:.1f}" if math.isfinite(value) else "–"


def number(value: float) -> str:
    """Three digits that count, and all before the point."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _inert(text: str) -> str:
    """*text* as no spreadsheet takes it for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{share(value)} [{share(interval[0])}–{share(interval[1])}]"


def _gap(row: Row) -> str:
    return "–" if not math.isfinite(row.gap_closed) else _with_interval(row.gap_closed, row.gap_interval)
