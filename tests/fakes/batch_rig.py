"""A batch engine over a real database and real files, with scripted experts, and a residency over servers that are none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domain.batch import Batch, BatchOptions, BatchState, FilePurpose, LineResult
from domain.chat import ChatRequest, RequestOptions
from domain.deadline import Deadline
from domain.errors import ConsiliumError, ExpertUnavailable, InvalidRequest
from domain.experts import ExpertCard
from experts_registry.batches import BatchStore
from experts_registry.database import Database
from experts_registry.files import FileStore
from orchestrator.answer import Answer
from orchestrator.batch.engine import BatchEngine
from orchestrator.batch.host import BatchExpert, Device, Host, Server
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.line import Lines
from orchestrator.batch.parts import EngineParts
from orchestrator.batch.ports import BatchStore as BatchStorePort
from orchestrator.batch.rights import LineRights, public_rights
from orchestrator.batch.unhurried import Unhurried
from orchestrator.guard import GuardedWorkers
from orchestrator.limits import Limits
from orchestrator.pipeline import Orchestrator
from orchestrator.ports import Directory, Memory, Router, Workers
from orchestrator.preparation import Preparation
from tests.fakes.directory import KeptTraces

CHAT = "/v1/chat/completions"
QUICK = BatchLimits(
    chunk_lines=8,
    write_every_s=0.0,
    first_pause_s=0.02,
    max_pause_s=0.05,
    max_outage_s=0.2,
    watch_s=0.01,
    lease_s=60.0,
    storage_patience_s=5.0,
    load_timeout_s=5.0,
)
"""Small chunks, so that a few lines are many, and short pauses."""


class ChatLines:
    """``orchestrator.batch.ports.ChatShape``, as small as can be."""

    def request(self, body: Mapping[str, Any], request_id: str) -> ChatRequest:
        if "messages" not in body:
            raise InvalidRequest("messages is missing", param="messages")
        options = RequestOptions(**body.get("consilium", {}))
        params = {name: value for name, value in body.items() if name not in {"model", "messages", "consilium"}}
        return ChatRequest(request_id, body["model"], tuple(body["messages"]), params, options=options)

    def answer(self, request: ChatRequest, body: Mapping[str, Any], answer: Answer) -> Mapping[str, Any]:
        del request, body
        return body_of(answer)


def body_of(answer: Answer) -> dict[str, Any]:
    usage = {"prompt_tokens": answer.usage.prompt_tokens, "completion_tokens": answer.usage.completion_tokens}
    return {"model": answer.model, "choices": [dict(choice.message) for choice in answer.choices], "usage": usage}


class Fleet:
    """Servers named like their experts, of 1 MB each, in *memory_mb*; the least recently used goes. Counts what is loaded."""

    def __init__(self, cards: Iterable[ExpertCard], *, memory_mb: float = 100.0) -> None:
        self.ids, self.memory_mb = [card.id for card in cards], memory_mb
        self.loaded: list[str] = []
        """Servers in the order in which they were loaded."""
        self.broken: dict[str, ConsiliumError] = {}
        """Servers that cannot be loaded."""
        self.fails_first: dict[str, list[ConsiliumError]] = {}
        """What the next loads of a server fail with."""
        self.trouble: str | None = None
        """Why none can be loaded."""
        self.num_tried = 0
        self.expected: Sequence[str] = ()
        self.measures: list[tuple[str, bool]] = []
        self.released: list[str] = []
        self._resident: list[str] = []

    def host(self, expert_ids: Sequence[str]) -> Host:
        servers = {expert_id: Server(expert_id, 1.0, 10.0) for expert_id in self.ids}
        experts = {expert_id: BatchExpert(expert_id, 0.1, expert_id) for expert_id in expert_ids}
        return Host((Device("cpu", self.memory_mb, resident=tuple(self._resident)),), servers, experts)

    def hold(self, server_id: str, deadline: Deadline) -> AbstractAsyncContextManager[None]:
        del deadline
        return self._held(server_id)

    @asynccontextmanager
    async def _held(self, server_id: str) -> AsyncIterator[None]:
        self.num_tried += 1
        if self.trouble is not None:
            raise ExpertUnavailable(self.trouble)
        if self.fails_first.get(server_id):
            raise self.fails_first[server_id].pop(0)
        if server_id in self.broken:
            raise self.broken[server_id]
        if server_id not in self._resident:
            while len(self._resident) + 1 > self.memory_mb:
                last = max(self._resident, key=lambda one: self.expected.index(one) if one in self.expected else len(self.expected))
                self._resident.remove(last)
            self._resident.append(server_id)
            self.loaded.append(server_id)
        yield

    def release(self, server_id: str) -> None:
        if server_id in self._resident:
            self._resident.remove(server_id)
            self.released.append(server_id)

    def expect(self, server_ids: Sequence[str]) -> None:
        self.expected = tuple(server_ids)

    def measured(self, expert_id: str, *, call_s: float, aggregation: bool) -> None:
        assert call_s >= 0
        self.measures.append((expert_id, aggregation))


def wire_error(error: ConsiliumError) -> tuple[int, Mapping[str, object]]:
    return 400, {"message": error.message, "code": error.code}


def output_line(custom_id: str, result: LineResult) -> bytes:
    told = {"custom_id": custom_id, "number": result.number, "status": result.status, "body": result.body, "error": result.error}
    return json.dumps(told).encode() + b"\n"


def chat_line(custom_id: str, text: str, *, model: str = "auto", **fields: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


@dataclass
class Rig:
    """Everything that a batch needs, on one database."""

    database: Database
    folder: Path
    directory: Directory
    routers: Mapping[str, Router]
    workers: Workers
    fleet: Fleet
    limits: BatchLimits = QUICK
    now: Callable[[], float] = lambda: 1000.0
    sink: KeptTraces = field(default_factory=KeptTraces)
    shapes: dict[str, Any] = field(default_factory=lambda: {CHAT: ChatLines()})
    encoder_id: Callable[[], str | None] | None = None
    num_ended: list[int] = field(default_factory=lambda: [0, 0])
    """Lines that were told to have been answered, and not."""
    rights_of: Callable[[Batch], LineRights] = public_rights
    memory: Memory | None = None

    def __post_init__(self) -> None:
        self.store = BatchStore(self.database, now=self.now)
        self.files = FileStore(self.database, self.folder, now=self.now)

    def engine(self, owner: str = "one", store: BatchStorePort | None = None) -> BatchEngine:
        preparation = Preparation(directory=self.directory, routers=self.routers, limits=Limits(), memory=self.memory)
        unhurried = Preparation(directory=Unhurried(self.directory), routers=self.routers, limits=Limits(), memory=self.memory)
        parts = EngineParts(
            store=store or self.store,
            files=self.files,
            fleet=self.fleet,
            directory=self.directory,
            lines=Lines(
                preparation,
                unhurried,
                [self.sink],
                keep_text=True,
                wait_s=self.limits.load_timeout_s,
                encoder_id=self.encoder_id,
            ),
            workers=GuardedWorkers(self.workers, self.directory),
            shapes=self.shapes,
            wire_error=wire_error,
            output_line=output_line,
            limits=self.limits,
            on_lines=self._count,
            rights_of=self.rights_of,
        )
        return BatchEngine(parts, owner=owner, now=self.now)

    def _count(self, num_completed: int, num_failed: int) -> None:
        self.num_ended[0] += num_completed
        self.num_ended[1] += num_failed

    @property
    def online(self) -> Orchestrator:
        """The path of single requests over the very same parts."""
        return Orchestrator(directory=self.directory, routers=self.routers, workers=self.workers, memory=self.memory)

    async def submit(
        self,
        *lines: Mapping[str, Any] | str,
        batch_id: str = "batch_1",
        endpoint: str = CHAT,
        window_s: float = 3600.0,
        age_s: float = 0.0,
        **options: Any,
    ) -> Batch:
        """A new batch over these lines, made *age_s* ago; a string is a line as it is."""
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)

        async def pieces() -> AsyncIterator[bytes]:
            yield text.encode()

        file = await self.files.create("in.jsonl", FilePurpose.BATCH, pieces())
        now = self.now() - age_s
        batch = Batch(batch_id, endpoint, file.id, BatchState.VALIDATING, now, now + window_s, options=BatchOptions(**options))
        return await self.store.create(batch)

    async def claimed(self, owner: str = "one") -> Batch:
        batch = await self.store.claim(owner, lease_s=self.limits.lease_s, runner=(await self.store.get("batch_1")).runner)
        assert batch is not None
        return batch

    async def run(self, owner: str = "one") -> Batch:
        return await self.engine(owner).run(await self.claimed(owner))

    async def answers(self, batch_id: str = "batch_1") -> dict[str, Any]:
        """The output file's lines by custom id; one that stands there twice fails the test."""
        return await self._lines((await self.store.get(batch_id)).output_file_id)

    async def errors(self, batch_id: str = "batch_1") -> dict[str, Any]:
        return await self._lines((await self.store.get(batch_id)).error_file_id)

    async def _lines(self, file_id: str | None) -> dict[str, Any]:
        if file_id is None:
            return {}
        with await self.files.open(file_id) as file:
            rows = [json.loads(line) for line in file]
        found = {row["custom_id"]: row for row in rows}
        assert len(found) == len(rows), "a line stands in the file twice"
        return found
