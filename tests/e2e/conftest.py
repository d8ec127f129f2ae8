"""One served zoo for all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from tests.e2e.processes import consilium


@pytest.fixture(scope="session")
def zoo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="session")
def zoo(zoo_folder: Path) -> Iterator[str]:
    """Base URL of a service with the embedded experts, started as a user starts it."""
    with consilium(zoo_folder) as url:
        yield url


@pytest.fixture
def client(zoo: str) -> Iterator[OpenAI]:
    """The OpenAI client, unchanged."""
    with OpenAI(base_url=f"{zoo}/v1", api_key="unused", max_retries=0) as client:
        yield client
