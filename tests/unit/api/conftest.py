"""The application over ASGI, with scripted experts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from api.app import create_app
from api.settings import Settings
from tests.fakes.services import Parts

Serve = Callable[..., Any]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path)  # type: ignore[call-arg]


@pytest.fixture
async def serve(settings: Settings) -> AsyncIterator[Serve]:
    """``http = await serve(parts)``: an httpx client of the application with these parts."""
    async with AsyncExitStack() as stack:

        async def start(parts: Parts, **changes: Any) -> httpx.AsyncClient:
            app = create_app(settings.model_copy(update=changes), bootstrap=parts.bootstrap())
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app=app)
            return await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://localhost:8080"))

        yield start


@pytest.fixture
def sdk() -> Callable[[httpx.AsyncClient], openai.AsyncOpenAI]:
    """OpenAI's own client, unchanged, over a given transport."""

    def make(http: httpx.AsyncClient) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url="http://localhost:8080/v1", api_key="none", http_client=http, max_retries=0)

    return make
