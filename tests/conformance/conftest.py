"""One served zoo for every client and every tool that is tried on it, behind a key, as a team would have it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.e2e.processes import ADMIN_KEY, consilium

KEY = "a-key-of-the-data-plane"
NODE = Path(__file__).with_name("node")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a service with the embedded experts, without ``/v1``."""
    with consilium(tmp_path_factory.mktemp("conformance"), CONSILIUM_API_KEYS=KEY) as url:
        yield url


@pytest.fixture(scope="session")
def base_url(zoo: str) -> str:
    """What clients are given."""
    return f"{zoo}/v1"


@pytest.fixture
def client(base_url: str) -> Iterator[OpenAI]:
    """OpenAI's client, unchanged."""
    with OpenAI(base_url=base_url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def admin(zoo: str) -> Iterator[httpx.Client]:
    """The admin plane."""
    with httpx.Client(base_url=f"{zoo}/admin/api", headers={"authorization": f"Bearer {ADMIN_KEY}"}, trust_env=False, timeout=60) as http:
        yield http


def run_node(*arguments: str, timeout_s: float = 240, **variables: str) -> subprocess.CompletedProcess[str]:
    """What ``node ARGUMENTS`` did, in the folder of the clients for it. Skips where there is no Node.js."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed: the clients that are written for it were not tried")
    if not (NODE / "node_modules").is_dir():
        pytest.fail("the clients for Node.js are not installed: `make node-clients` does it, `make test` too")
    environment: dict[str, Any] = {"PATH": str(Path(node).parent), "NO_COLOR": "1", **variables}
    return subprocess.run([node, *arguments], cwd=NODE, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
