"""docs/telemetry.md names what there is, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from api import spans
from tests.e2e.processes import ROOT
from tests.fakes.spanned import ALGEBRA, CONTEXT, READER, WORDS, card_of, trace

PAGE = (ROOT / "docs/telemetry.md").read_text(encoding="utf-8")
QUOTED = re.compile(r"`([^`]+)`")


def rows(heading: str) -> list[list[str]]:
    """The cells of each row of the first table below *heading*."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


async def test_the_table_has_every_metric_with_its_type_and_labels(busy: httpx.AsyncClient) -> None:
    text = (await busy.get("/metrics")).text
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels.setdefault(f"{family.name}_total" if family.type == "counter" else family.name, set()).update(sample.labels)
    documented = {name: (row[1], set(QUOTED.findall(row[2]))) for row in rows("Metrics") for name in QUOTED.findall(row[0])}

    assert documented.keys() == types.keys()
    for name, (kind, named) in documented.items():
        assert not kind or kind == types[name], name
        if name in labels:
            assert named == labels[name] - {"le"}, name


def test_every_alert_stands_there_with_its_severity() -> None:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"]
    rules = [(rule["alert"], rule["labels"]["severity"]) for group in groups for rule in group["rules"]]

    assert [(QUOTED.findall(row[0])[0], row[1]) for row in rows("Alerts")] == rules


def test_every_attribute_of_a_span_stands_there() -> None:
    """Those of a trace in which everything is known."""
    failed: dict[str, Any] = {"status": "error", "error_code": "internal_error"}
    full = {"stream": True, "session_id": "s", "key_id": "k", "aggregator": "fuse:reader", **failed}
    calls = (replace(ALGEBRA, stage=1, confidence=0.5, first_token_ms=1.0), WORDS, READER)
    told = spans.spans_of(trace(*calls, **full), card_of)
    told += spans.spans_of(trace(decision=None, **failed), card_of)
    told.append(
        spans.embeddings_span(
            CONTEXT, request_id="r", model="m", started_at=1.0, seconds=1.0, num_texts=1, num_tokens=2, dimensions=3,
            encoding_format="float", key_id="k", error_type="internal_error",
        )
    )  # fmt: skip
    found: dict[str, set[str]] = {}
    for span in told:
        kind = (
            "embeddings"
            if span.name.startswith("embeddings")
            else {"server": "request", "client": "call"}.get(span.kind, "routing" if span.name.startswith("route") else "aggregation")
        )
        found.setdefault(kind, set()).update(span.attributes)
    known = {row[0]: {name for name in QUOTED.findall(row[1]) if "." in name} for row in rows("Spans")}

    assert known == found
