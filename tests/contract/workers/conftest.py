"""Fixtures: each test that takes ``case`` runs once for every worker, each that takes ``http_case`` for those over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.workers.cases import CASES, HTTP_CASES, KEYED_CASES, Case, write_models


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(params=CASES)
async def case(request: pytest.FixtureRequest, models_folder: Path) -> AsyncIterator[Case]:
    async with CASES[request.param](models_folder) as case:
        yield case


@pytest.fixture(params=HTTP_CASES)
async def http_case(request: pytest.FixtureRequest, models_folder: Path) -> AsyncIterator[Case]:
    async with HTTP_CASES[request.param](models_folder) as case:
        yield case


@pytest.fixture(params=KEYED_CASES)
async def keyed_case(request: pytest.FixtureRequest, models_folder: Path) -> AsyncIterator[Case]:
    async with KEYED_CASES[request.param](models_folder) as case:
        yield case
