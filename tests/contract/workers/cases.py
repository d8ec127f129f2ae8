"""What the contract runs against: one line for each worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from domain.chat import Chunk
from domain.deadline import Deadline
from domain.experts import Backend, ExpertCard
from domain.plan import ExpertCall
from tests.contract.workers.tiny_models import write_endless, write_speaker
from tests.fakes.upstream import Stall, Upstream, running_upstream
from workers.limits import PoolLimits
from workers.managed.settings import Address
from workers.pool import WorkerPool

LITELLM_WARNINGS = (".*ReadOnly.*qualifier:UserWarning", ".*attribute on the instance is deprecated.*:DeprecationWarning")
"""How LiteLLM uses pydantic when it reads a stream: nothing that we could change."""

REASONING, ANSWER = "qw", "abcdefghij"


@dataclass
class Case:
    """One backend with the two experts ``speaker`` and ``endless``."""

    pool: WorkerPool
    speaker: ExpertCard
    endless: ExpertCard
    upstream: Upstream | None
    until_idle: Callable[[], Awaitable[None]]
    """Returns once the backend works on nothing any more."""

    def make_slow(self) -> None:
        """Let the next call take longer than any test waits. The embedded ``endless`` does so by nature."""
        if self.upstream is not None:
            self.upstream.faults.append(Stall())


@dataclass
class Streamed:
    """A stream put together again."""

    contents: dict[int, str] = field(default_factory=dict)
    reasonings: dict[int, str] = field(default_factory=dict)
    finish_reasons: dict[int, str] = field(default_factory=dict)
    tool_arguments: str = ""
    tool_names: list[str] = field(default_factory=list)
    logprob_tokens: list[str] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)

    def add(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        for piece in chunk.choices:
            self.contents[piece.index] = self.contents.get(piece.index, "") + (piece.delta.get("content") or "")
            self.reasonings[piece.index] = self.reasonings.get(piece.index, "") + (piece.delta.get("reasoning_content") or "")
            for call in piece.delta.get("tool_calls", ()):
                self.tool_arguments += call["function"].get("arguments") or ""
                if call["function"].get("name"):
                    self.tool_names.append(call["function"]["name"])
            if piece.finish_reason is not None:
                self.finish_reasons[piece.index] = piece.finish_reason
            if piece.logprobs:
                self.logprob_tokens += [entry["token"] for entry in piece.logprobs["content"]]


def call_of(card: ExpertCard, *, text: str = "Say it.", timeout_s: float = 60.0, **params: Any) -> ExpertCall:
    message = {"role": "user", "content": text}
    return ExpertCall(card, (message,), params, Deadline.after(timeout_s), request_id="req-1")


async def streamed(case: Case, call: ExpertCall, into: Streamed | None = None) -> Streamed:
    """The whole stream; *into* also shows what came before an error."""
    result = into or Streamed()
    async for chunk in case.pool.stream(call):
        result.add(chunk)
    return result


def new_pool(embedded_dir: Path, **more: Any) -> WorkerPool:
    # No waiting between attempts: tests are about whether there is another one.
    limits = PoolLimits(retry_wait_initial_s=0.0, retry_wait_max_s=0.0)
    return WorkerPool(embedded_dir=embedded_dir, limits=limits, environ={"STUB_API_KEY": "sk-stub"}, **more)


@asynccontextmanager
async def embedded_case(folder: Path) -> AsyncIterator[Case]:
    pool = new_pool(folder)
    await pool.start()
    speaker = ExpertCard("speaker", Backend.EMBEDDED, "speaker", context_length=4096)
    endless = replace(speaker, id="endless", model="endless")
    await pool.warm([speaker, endless])

    async def until_idle() -> None:
        while pool._workers[Backend.EMBEDDED].num_live:  # type: ignore[attr-defined]  # another thread's fact
            await asyncio.sleep(0)

    try:
        yield Case(pool, speaker, endless, None, until_idle)
    finally:
        await pool.close()


@asynccontextmanager
async def _http_case(folder: Path, backend: Backend, prefix: str) -> AsyncIterator[Case]:
    async with running_upstream() as upstream:
        pool = new_pool(folder)
        await pool.start()
        card = ExpertCard("speaker", backend, f"{prefix}speaker", base_url=upstream.base_url, api_key="env:STUB_API_KEY")
        try:
            yield Case(pool, card, replace(card, id="endless", model=f"{prefix}endless"), upstream, upstream.until_idle)
        finally:
            await pool.close()


@asynccontextmanager
async def openai_case(folder: Path) -> AsyncIterator[Case]:
    async with _http_case(folder, Backend.OPENAI, "") as case:
        yield case


@asynccontextmanager
async def litellm_case(folder: Path) -> AsyncIterator[Case]:
    async with _http_case(folder, Backend.LITELLM, "openai/") as case:
        yield case


class OneServer:
    """A fleet whose only server is up, at the upstream's address."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self.num_held = 0

    def manages(self, card: ExpertCard) -> bool:
        return card.backend is Backend.VLLM

    @asynccontextmanager
    async def held(self, card: ExpertCard, deadline: Deadline, tell: Callable[[str], None] | None) -> AsyncIterator[Address]:
        self.num_held += 1
        try:
            yield Address(card.base_url or self._base_url, card.model.rpartition("/")[2])
        finally:
            self.num_held -= 1


@asynccontextmanager
async def vllm_case(folder: Path) -> AsyncIterator[Case]:
    """An expert on a managed server: held for each call, then called over HTTP. Coming up is ``tests/integration/vllm``'s."""
    async with running_upstream() as upstream:
        fleet = OneServer(upstream.base_url)
        pool = new_pool(folder, fleet=cast(Any, fleet))
        await pool.start()
        card = ExpertCard("speaker", Backend.VLLM, "/models/speaker")

        async def until_idle() -> None:
            await upstream.until_idle()
            assert fleet.num_held == 0

        try:
            yield Case(pool, card, replace(card, id="endless", model="/models/endless"), upstream, until_idle)
        finally:
            await pool.close()


CASES = {
    "embedded": embedded_case,
    "openai": openai_case,
    "litellm": litellm_case,
    "vllm": vllm_case,
}
HTTP_CASES = {name: CASES[name] for name in ("openai", "litellm", "vllm")}
KEYED_CASES = {name: CASES[name] for name in ("openai", "litellm")}
"""Those whose cards name an address and a key."""


def write_models(folder: Path) -> Path:
    write_speaker(folder / "speaker")
    write_endless(folder / "endless")
    return folder
