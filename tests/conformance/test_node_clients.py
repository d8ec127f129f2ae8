"""Clients for Node.js on the served zoo: OpenAI's own, and Vercel's AI SDK with its provider for OpenAI-compatible services.

The tests themselves are in ``node``; here they are run.
"""

from __future__ import annotations

import re

import pytest

from tests.conformance.conftest import KEY, run_node

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(("client", "num_tests"), [("openai", 12), ("ai-sdk", 8)])
def test_client(base_url: str, client: str, num_tests: int) -> None:
    """Each of its tests passes, and all of them ran."""
    done = run_node("--test", "--test-reporter=tap", f"{client}.test.js", CONSILIUM_BASE_URL=base_url, CONSILIUM_KEY=KEY)

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    counts = dict(re.findall(r"^# (tests|pass|fail|skipped|todo) (\d+)$", done.stdout, re.MULTILINE))
    assert counts == {"tests": str(num_tests), "pass": str(num_tests), "fail": "0", "skipped": "0", "todo": "0"}
