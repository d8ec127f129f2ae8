"""Tools that judge how compatible a service is: llm-comply and CompatCanary. What each still finds is argued in docs/conformance.md."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conformance.conftest import KEY, run_node

pytestmark = pytest.mark.timeout(300)

NO_VISION = "chat-image-input"
"""No expert of the zoo sees."""


def complied(base_url: str, model: str) -> dict[str, Any]:
    """What llm-comply says of each of its checks, by id."""
    command = [sys.executable, "-m", "llm_comply.cli", "--format", "openai-chat", "-u", base_url, "-k", KEY, "-m", model, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout, done.stderr
    return {result["id"]: result for result in json.loads(done.stdout)["results"]}


def scanned(base_url: str, model: str) -> dict[str, Any]:
    """CompatCanary's report."""
    done = run_node(
        "node_modules/compatcanary/src/cli.js", "scan", "--base-url", base_url, "--model", model, "--profile", "chat", "--format", "json",
        OPENAI_API_KEY=KEY,
    )  # fmt: skip
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_a_strategy_without_a_fallback_refuses_what_nobody_was_measured_on(base_url: str) -> None:
    """Small talk is like nothing known, and without a fallback expert it is a 503 that says so. What is left passes."""
    found = complied(base_url, "consilium/single")

    failed = {check: result["errors"][0] for check, result in found.items() if result["status"] == "failed"}
    assert set(failed.values()) == {"HTTP 503 (expected [200])"}
    assert sum(result["status"] == "passed" for result in found.values()) >= 3


@pytest.mark.parametrize("model", ["auto", "numerals"])
def test_llm_comply_passes_seven_of_nine(base_url: str, model: str) -> None:
    """All but the image, and one that is only for models of OpenAI's and skips itself; no warnings."""
    found = complied(base_url, model)

    assert len(found) == 9
    assert {check for check, result in found.items() if result["status"] == "failed"} == {NO_VISION}, found
    assert [check for check, result in found.items() if result["status"] == "skipped"] == ["chat-reasoning-summary"]
    assert sum(result["status"] == "passed" for result in found.values()) >= 7
    assert not any(result.get("warnings") for result in found.values())


@pytest.mark.parametrize("model", ["auto", "numerals"])
def test_compatcanary_finds_it_compatible(base_url: str, model: str) -> None:
    report = scanned(base_url, model)

    assert report["compatible"] is True
    assert report["score"] == 100
    assert {result["status"] for result in report["results"]} == {"pass"}
