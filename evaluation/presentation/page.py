"""A report as one HTML page that needs nothing from anywhere: styles and charts are in it, everything is escaped."""

from __future__ import annotations

from html import escape
from typing import Any

from evaluation.comparison.report import Report
from evaluation.presentation.charts import charts
from evaluation.presentation.tables import main_table, share, tables
from evaluation.report import Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --line: #d5dae0; --soft: #f3f5f7; --mark: #e8f0fa; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ed; --paper: #14171b; --line: #363c44; --soft: #1d2127; --mark: #1b2b3f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
.lead { margin: 0 0 1.5rem; opacity: .8; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; margin: 1.5rem 0; padding: 0; }
.facts div { background: var(--soft); border-radius: .5rem; padding: .75rem 1rem; }
.facts dt { font-size: .8rem; opacity: .75; } .facts dd { margin: 0; font-size: 1.25rem;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .86rem; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th.left, td.left { text-align: left; } thead th { background: var(--soft); } tbody tr:last-child td { border-bottom: 0; }
tr.router td, tr.strategy td { background: var(--mark); }
figure { margin: 1.5rem 0; } figure svg { max-width: 100%; height: auto; } figcaption { font-weight: 600; margin-bottom: .5rem; }
.note { font-size: .88rem; opacity: .85; } ul { padding-left: 1.2rem; } details { margin: 1rem 0; } summary { cursor: pointer; }
"""
_READING = (
    ("accuracy", "mean score over the questions; the interval is a bootstrap over questions, 95 %"),
    ("gap closed", "share of the way from the best single expert (chosen on the training questions) to the oracle"),
    ("regret", "mean score lost to the oracle, in points"),
    ("curve area", "mean accuracy under the hull of the cost-quality curve, over the costs from the cheapest to the dearest expert"),
    ("equal at", "the smallest share of the best single expert's cost at which a point of the curve scores as much, in %"),
    ("missed", "questions that another expert would have answered better; hopeless: that nobody answered"),
    ("overpaid", "questions that a cheaper expert would have answered as well"),
    (
        "unknown",
        "questions without a score for the way's answer; they count in none of its figures, so ways with many are compared loosely",
    ),
)


def page(report: Report) -> str:
    """The whole page."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">",
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(report.title)}</h1>",
        f'<p class="lead">{report.num_questions} questions, {len(report.expert_ids)} experts.</p>',
        _facts(report),
    ]
    first, *others = tables(report)
    parts += [f"<h2>{escape(main_table(report).title)}</h2>", _table(first, kinds=[row.kind for row in report.rows])]
    parts += [_missing(report), _notes(report), "<h2>Charts</h2>"]
    for chart in charts(report):
        parts.append(f"<figure><figcaption>{escape(chart.title)}</figcaption>{chart.svg()}</figure>")
    for table in others:
        parts += [f"<h2>{escape(table.title)}</h2>", _table(table)]
    parts += [_explained(), _settings(report), "</body></html>"]
    return "\n".join(part for part in parts if part) + "\n"


def _facts(report: Report) -> str:
    routers = [row for row in report.rows if row.kind in {"router", "strategy"}]
    facts: list[tuple[str, str]] = []
    if routers:
        best = max(routers, key=lambda row: row.accuracy)
        facts += [
            ("best way", best.name),
            ("its accuracy", f"{share(best.accuracy)} %"),
            ("oracle gap closed", f"{share(best.gap_closed)} %"),
        ]
        if best.equal_cost == best.equal_cost:  # not NaN
            facts.append(("equals the best single at", f"{share(best.equal_cost)} % of its cost"))
    named = {row.name: row for row in report.rows}
    facts += [(name, f"{share(named[name].accuracy)} %") for name in ("best single", "oracle", "random expert") if name in named]
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def _table(table: Table, *, kinds: list[str] | None = None) -> str:
    def cells(tag: str, values: tuple[str, ...]) -> str:
        return "".join(
            f"<{tag}{' class=left' if index < table.num_left else ''}>{escape(value)}</{tag}>" for index, value in enumerate(values)
        )

    body = "".join(f"<tr{f' class={kinds[number]}' if kinds else ''}>{cells('td', row)}</tr>" for number, row in enumerate(table.rows))
    return f'<div class="scroll"><table><thead><tr>{cells("th", table.columns)}</tr></thead><tbody>{body}</tbody></table></div>'


def _missing(report: Report) -> str:
    if not report.unavailable:
        return ""
    items = "".join(f"<li><b>{escape(missing.name)}</b>: {escape(missing.why)}</li>" for missing in report.unavailable)
    return f'<div class="note"><p>Not told by this data:</p><ul>{items}</ul></div>'


def _notes(report: Report) -> str:
    said = [*report.notes, *(f"{row.name}: {row.note}" for row in report.rows if row.note)]
    return f'<ul class="note">{"".join(f"<li>{escape(text)}</li>" for text in said)}</ul>' if said else ""


def _explained() -> str:
    items = "".join(f"<li><b>{escape(name)}</b>: {escape(meaning)}</li>" for name, meaning in _READING)
    return f'<details open><summary>How to read this</summary><ul class="note">{items}</ul></details>'


def _settings(report: Report) -> str:
    shown: dict[str, Any] = {**report.settings, **{f"duplicates dropped: {k}": v for k, v in report.duplicates.items()}}
    rows = tuple((str(name), str(value)) for name, value in shown.items())
    return f"<details><summary>Settings</summary>{_table(Table('', ('setting', 'value'), rows, num_left=2))}</details>"
