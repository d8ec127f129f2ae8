"""The dashboard and the alerts ask for what the service shows, and a real Prometheus reads all three."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.processes import ROOT, free_port
from tests.e2e.processes import running as running_process
from tests.integration.telemetry.promql import named_in

PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboards/consilium.json").read_text(encoding="utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())] + [rule["expr"] for rule in RULES]
OF_PROMETHEUS = {"job", "instance", "le"}
"""Labels that it adds itself, and the one that every bucket has."""
OF_OTHERS = re.compile(r"up|vllm:\w+")
"""Made by Prometheus for each target, and vLLM's own."""
SCRAPED_WITHIN_S = 60.0

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian's package prometheus)")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus (Debian's package prometheus)")


@pytest.mark.parametrize(
    ("expression", "metrics", "grouping"),
    [
        ("up == 0", {"up": set()}, set()),
        ('sum by (a, b) (rate(x_total{c="d{e}",f!~"g"}[$__rate_interval])) / 2', {"x_total": {"c", "f"}}, {"a", "b"}),
        ("histogram_quantile(0.95, sum by (le) (rate(x_bucket[5m])))", {"x_bucket": set()}, {"le"}),
        ("max(a) or vector(0) and on () group_left () 3600 * vllm:b{}", {"a": set(), "vllm:b": set()}, set()),
    ],
)
def test_what_an_expression_names(expression: str, metrics: dict[str, set[str]], grouping: set[str]) -> None:
    found = named_in(expression)

    assert (found.metrics, found.grouping) == (metrics, grouping)


async def test_every_expression_names_what_the_service_shows(busy: httpx.AsyncClient) -> None:
    """By name, and by label where a series is there to have one."""
    text = (await busy.get("/metrics")).text
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        names = [family.name, *(f"{family.name}_{part}" for part in ("total", "bucket", "sum", "count"))]
        shown = {"counter": names[1:2], "gauge": names[:1], "histogram": names[2:]}[family.type]
        labels |= {name: set() for name in shown}
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)

    assert len(EXPRESSIONS) > 60
    for expression in EXPRESSIONS:
        found = named_in(expression)
        ours = {name: matched for name, matched in found.metrics.items() if not OF_OTHERS.fullmatch(name)}
        assert ours.keys() <= labels.keys(), expression
        for name, matched in ours.items():
            if labels[name] and found.metrics.keys() == ours.keys():
                assert matched | found.grouping <= labels[name] | OF_PROMETHEUS, expression


async def test_everything_that_the_service_shows_stands_on_the_dashboard_or_is_a_detail(busy: httpx.AsyncClient) -> None:
    """Who adds a metric decides whether an operator sees it."""
    text = (await busy.get("/metrics")).text
    asked = {name for expression in EXPRESSIONS for name in named_in(expression).metrics}
    shown = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    unseen = {name for name in shown if not any(found.startswith(name) for found in asked)}

    assert unseen == {
        "consilium_expert_feedback", "consilium_expert_feedback_frozen",
        "process_virtual_memory_bytes", "process_start_time_seconds",
    }  # fmt: skip


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """Panels have ids of their own, lie beside each other within 24 columns, in rows, and ask the provisioned source."""
    panels = DASHBOARD["panels"]
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]

    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [(x, y) for panel in panels for x, y in _cells(panel["gridPos"])]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == [
        "At a glance", "Requests", "Routing", "Experts", "Quality", "Managed servers", "Batches", "Records and process", "vLLM"
    ]  # fmt: skip
    for panel in panels:
        assert panel["title"]
        assert panel["type"] == "row" or {target["datasource"]["uid"] for target in panel["targets"]} == {source["uid"]}


def _cells(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    return ((place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"]))


def test_every_alert_is_tried_and_says_what_it_means() -> None:
    tried = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    cases = [(case["alertname"], bool(case["exp_alerts"])) for test in tried for case in test["alert_rule_test"]]

    assert set(cases) == {(rule["alert"], fires) for rule in RULES for fires in (True, False)}
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "--syntax-only", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_takes_what_is_deployed(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
async def test_promtool_takes_what_the_service_shows(busy: httpx.AsyncClient) -> None:
    text = (await busy.get("/metrics")).text
    check = partial(subprocess.run, ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=60)
    done = await asyncio.to_thread(check)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_prometheus
async def test_a_real_prometheus_scrapes_a_running_service(busy: httpx.AsyncClient, tmp_path: Path) -> None:
    """With the configuration that is deployed, but for where the service is and how often it is asked."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    key = tmp_path / "key"
    key.write_text("admin")
    job = next(job for job in config["scrape_configs"] if job["job_name"] == "consilium")
    job["authorization"]["credentials_file"] = str(key)
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [f"{busy.base_url.host}:{busy.base_url.port}"]}]
    config["scrape_configs"] = [job]
    file, port = tmp_path / "prometheus.yml", free_port()
    file.write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{port}"
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]

    began = running_process(command, environment={}, log=tmp_path / "log", ready=f"{url}/-/ready", within_s=SCRAPED_WITHIN_S)
    with ExitStack() as stack:  # in threads: what it scrapes is served by this very loop
        await asyncio.to_thread(stack.enter_context, began)
        try:
            async with httpx.AsyncClient(base_url=url, trust_env=False) as prometheus:
                up, calls, rules = await _seen(prometheus)
        finally:
            await asyncio.to_thread(stack.close)

    assert len(up) == 1
    assert calls == {("speaker", "ok"): 3, ("speaker", "error"): 1, ("other", "ok"): 1, ("reader", "ok"): 1}
    assert {rule["name"] for rule in rules} == {rule["alert"] for rule in RULES}
    assert {rule["health"] for rule in rules} == {"ok"}


async def _seen(prometheus: httpx.AsyncClient) -> tuple[list[Any], dict[tuple[str, str], float], list[dict[str, Any]]]:
    """The targets that are up, calls by expert and status, and the rules; every expression has been asked by then."""

    async def asked(expression: str) -> list[dict[str, Any]]:
        told = (await prometheus.get("/api/v1/query", params={"query": expression})).json()
        assert told["status"] == "success", (expression, told)
        result: list[dict[str, Any]] = told["data"]["result"]
        return result

    async with asyncio.timeout(SCRAPED_WITHIN_S):
        while not (up := await asked('up{job="consilium"} == 1')):
            await asyncio.sleep(0.1)
        for expression in EXPRESSIONS:
            await asked(expression.replace("$__rate_interval", "1m").replace("$__range", "1h"))
        series = await asked("sum by (expert, status) (consilium_expert_calls_total)")
        while any(rule["health"] == "unknown" for rule in await _rules(prometheus)):
            await asyncio.sleep(0.1)
        calls = {(found["metric"]["expert"], found["metric"]["status"]): float(found["value"][1]) for found in series}
        return up, calls, await _rules(prometheus)


async def _rules(prometheus: httpx.AsyncClient) -> list[dict[str, Any]]:
    groups = (await prometheus.get("/api/v1/rules")).json()["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]
