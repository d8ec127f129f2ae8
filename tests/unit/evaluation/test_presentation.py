"""A report as tables, charts and a page."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from evaluation.comparison.arms import CurvePoint, Measured, Unavailable
from evaluation.comparison.coverage import coverage_of
from evaluation.comparison.oracle import oracle_gap
from evaluation.comparison.report import Confusion, LearningPoint, Report
from evaluation.comparison.summary import BEST_SINGLE, group_tables, oracle_arm, random_arm, rows_of, single_arms
from evaluation.presentation.charts import charts
from evaluation.presentation.page import page
from evaluation.presentation.tables import as_csv, main_table, tables

EVIL = "<script>alert('$x$')</script>"


@pytest.fixture(scope="module")
def report() -> Report:
    rng = np.random.default_rng(0)
    m = Measured(
        (EVIL, "=cmd|calc", "c"),
        (rng.random((40, 3)) > 0.5).astype(float),
        np.tile([3.0, 2.0, 1.0], (40, 1)),
        unit="USD",
        groups={"category": (("a & b",),) * 20 + (("other",),) * 20},
        parts=("fold 1",) * 20 + ("fold 2",) * 20,
    )
    router = m.choice("router λ=1", rng.integers(0, 3, 40))
    curve = (CurvePoint(0.0, 2.0, 0.7), CurvePoint(1.0, 1.0, 0.4))
    arms = [
        type(router)(**{name: getattr(router, name) for name in router.__slots__} | {"curve": curve}),
        m.choice(BEST_SINGLE, np.ones(40, int), kind="baseline"), random_arm(m), oracle_arm(m), *single_arms(m),
    ]  # fmt: skip
    return Report(
        title=f"Test {EVIL}",
        settings={"seed": 0, EVIL: EVIL},
        num_questions=40,
        expert_ids=m.expert_ids,
        unit="USD",
        best_single="c",
        rows=rows_of(arms, m, seed=0, num_resamples=50),
        unavailable=(Unavailable(EVIL, EVIL),),
        oracle_gaps=(oracle_gap(arms[0], m),),
        coverage=coverage_of(m.expert_ids, m.scores),
        groups=group_tables(arms, m),
        confusions=(Confusion("category", "categories", ("a & b", EVIL), ("a & b", EVIL), ((19, 1), (2, 18))),),
        learning=(LearningPoint("router", 10, 0.5, 0.1), LearningPoint("router", 20, 0.6, 0.2)),
        duplicates={"train_exact": 2},
        notes=(EVIL,),
    )


class Collected(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "action", "data"}]


def test_the_page_runs_nothing_and_asks_nobody(report: Report) -> None:
    """Names with markup are text; the only addresses are places in the page itself, which all exist once."""
    text = page(report)
    found = Collected(text)

    assert "script" not in found.tags
    assert "&lt;script&gt;" in text
    assert not re.search(r"https?://|url\((?!#)|@import", text)
    places = {address for address in found.addresses if not address.startswith("data:image/png;base64,")}
    assert all(address.startswith("#") for address in places)
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in places} <= set(ids)


def test_the_page_has_every_part(report: Report) -> None:
    text = page(report)

    assert text.count("<svg") == len(list(charts(report))) == 6
    assert text.count("<table") == len(list(tables(report))) + 1
    assert "prefers-color-scheme: dark" in text
    assert "currentColor" in text


def test_charts_are_pictures(report: Report) -> None:
    found = {chart.name: chart.png() for chart in charts(report)}

    assert set(found) == {"accuracy", "cost_quality", "coverage", "by_category", "learning_curve", "confusion_0"}
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 3000 for picture in found.values())


def test_the_csv_has_full_figures_and_no_formula(report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))

    assert len(rows) == len(report.rows)
    assert float(rows[0]["accuracy"]) == pytest.approx(report.rows[0].accuracy)
    assert float(rows[0]["curve_area"]) == pytest.approx(report.rows[0].area)
    assert rows[-2]["name"] == "'=cmd|calc"
    assert rows[-1]["curve_area"] == ""


def test_the_table_leaves_out_what_nobody_has(report: Report) -> None:
    assert "latency ms" not in main_table(report).columns
    assert {"cost", "equal at"} <= set(main_table(report).columns)
    assert "router λ=1" in main_table(report).plain()
    assert "unknown" not in main_table(report).columns


def test_the_table_tells_how_many_questions_count_for_nothing(report: Report) -> None:
    """Ways with unknown scores are compared over different questions: who reads the figures must see it."""
    partly = replace(report, rows=(replace(report.rows[0], num_unknown=7), *report.rows[1:]))
    shown = main_table(partly)

    assert dict(zip(shown.columns, shown.rows[0], strict=True))["unknown"] == "7"
