"""Calls to experts on managed servers: over HTTP, as to any other vLLM, at the address that the server has now."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from domain.chat import Chunk
from domain.errors import ExpertUnavailable
from domain.experts import ExpertCard
from domain.plan import Candidate, ExpertCall
from workers.managed.fleet import Fleet
from workers.managed.settings import Address
from workers.openai_worker import OpenAIWorker

_MAX_CARDS = 4096
"""Cards whose addresses are remembered; a registry has fewer."""


class ManagedWorker:
    """The pool calls ``held`` around everything else; the call that it gives is the one to make."""

    def __init__(self, fleet: Fleet | None, http: OpenAIWorker) -> None:
        self._fleet = fleet
        self._http = http
        self._addressed: dict[str, tuple[ExpertCard, Address, ExpertCard]] = {}

    async def start(self) -> None:
        await self._http.start()

    async def close(self) -> None:
        await self._http.close()

    @asynccontextmanager
    async def held(self, call: ExpertCall) -> AsyncIterator[ExpertCall]:
        """*call* as it goes to its server, which is up, with the expert's adapter, as long as the block lasts. Waits at most for the
        request's deadline. Raises ``ExpertError``."""
        if self._fleet is None:
            raise ExpertUnavailable(f"expert {call.expert.id!r} needs a managed server, and this process manages none")
        async with self._fleet.held(call.expert, call.deadline, call.on_progress) as address:
            yield replace(call, expert=self._card_at(call.expert, address))

    def _card_at(self, card: ExpertCard, address: Address) -> ExpertCard:
        """*card* as it is called at *address*; made anew only when one of them has changed, which is rare beside calls."""
        before = self._addressed.get(card.id)
        if before is not None and before[0] is card and before[1] == address:
            return before[2]
        made = replace(card, base_url=address.base_url, model=address.model, api_key=None)
        if len(self._addressed) >= _MAX_CARDS:
            self._addressed.clear()
        self._addressed[card.id] = (card, address, made)
        return made

    async def complete(self, call: ExpertCall) -> Candidate:
        return await self._http.complete(call)

    def stream(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
        return self._http.stream(call)
