"""Experts that run in this process."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from domain.chat import Choice, Chunk, Message, Usage, text_of
from domain.errors import ExpertContextTooLong
from domain.experts import ExpertCard
from domain.plan import Candidate, ExpertCall
from workers.embedded.answer import ChoiceWriter, merged
from workers.embedded.compiling import Compiling
from workers.embedded.engine import Engine
from workers.embedded.folder import find_folder
from workers.embedded.guide import Guide
from workers.embedded.model import LoadedModel, load_model
from workers.embedded.params import generation_of
from workers.embedded.sequence import Events, Progress, Sequence
from workers.limits import EmbeddedLimits

_CHARS_OF_A_MESSAGE = 10
"""What rendering a message takes besides its text, in characters that take as long."""

_Key = tuple[str, str | None]
Messages = tuple[Message, ...]


class EmbeddedWorker:
    """Loads experts when they are first called and runs their calls together on one engine."""

    def __init__(self, embedded_dir: Path, limits: EmbeddedLimits) -> None:
        self._embedded_dir = embedded_dir
        self._limits = limits
        self._engine = Engine(limits)
        self._compiling = Compiling(limits)
        self._models: OrderedDict[_Key, LoadedModel] = OrderedDict()
        self._loading = asyncio.Lock()

    @property
    def num_live(self) -> int:
        """Sequences that the engine is working on."""
        return self._engine.num_live

    async def start(self) -> None:
        self._engine.start()

    async def close(self) -> None:
        self._compiling.close()
        await asyncio.to_thread(self._engine.close)
        self._models.clear()

    async def warm(self, card: ExpertCard) -> None:
        """Load the expert of *card*. Raises ``ExpertUnreachable``."""
        await self._model(card)

    async def complete(self, call: ExpertCall) -> Candidate:
        sequences = await self._sequences(call, streaming=False)
        writers = _writers(sequences)
        choices: dict[int, Choice] = {}
        num_tokens = 0
        async with aclosing(self._run(sequences)) as events:
            async for news in events:
                for progress in news:
                    choices[progress.index] = writers[progress.index].whole(progress)
                    num_tokens += progress.num_tokens
        return Candidate(call.expert.id, tuple(choices[i] for i in sorted(choices)), Usage(len(sequences[0].prompt), num_tokens))

    async def stream(self, call: ExpertCall) -> AsyncGenerator[Chunk, None]:
        sequences = await self._sequences(call, streaming=True)
        writers = _writers(sequences)
        num_tokens = 0
        async with aclosing(self._run(sequences)) as events:
            async for news in events:
                deltas = [writers[progress.index].delta(progress) for progress in news]
                num_tokens += sum(progress.num_tokens for progress in news if progress.last)
                if told := tuple(delta for delta in deltas if delta.delta or delta.finish_reason is not None):
                    yield Chunk(told)
        yield Chunk(usage=Usage(len(sequences[0].prompt), num_tokens))

    async def _run(self, sequences: list[Sequence]) -> AsyncGenerator[list[Progress], None]:
        """What the engine tells, until every sequence is finished. Leaving early frees their places."""
        events, running = sequences[0].events, len(sequences)
        self._engine.submit(sequences)
        try:
            while running:
                news = [await events.get()]
                while not events.empty():
                    news.append(events.get_nowait())
                for progress in news:
                    if progress.error is not None:
                        raise progress.error
                    running -= progress.last
                yield merged(news)
        finally:
            for sequence in sequences:
                sequence.cancelled = True

    async def _sequences(self, call: ExpertCall, *, streaming: bool) -> list[Sequence]:
        """The call as sequences for the engine, one for each choice. Raises ``ExpertRejected``."""
        card, params = call.expert, {**call.params, **call.expert.extra_body}
        model = await self._model(card)
        generation = generation_of(params, model.defaults, self._limits, model.vocab_size)
        prompt = await self._prompt(model, call.messages, params)
        context = min(card.context_length, model.max_length)
        if len(prompt) >= context:
            msg = f"this model's maximum context length is {context} tokens, and the prompt has {len(prompt)}: shorten the conversation"
            raise ExpertContextTooLong(msg, status=400)
        max_tokens = min(generation.max_tokens or context, context - len(prompt))
        guides: list[Guide | None] = [None] * generation.num_choices
        if generation.constraint is not None:
            guides = [*await self._compiling.guides(model, generation.constraint, generation.num_choices, max_tokens)]
        loop, events = asyncio.get_running_loop(), Events()
        return [
            Sequence(model, prompt, generation, max_tokens, index, streaming, loop, events, guide) for index, guide in enumerate(guides)
        ]

    async def _prompt(self, model: LoadedModel, messages: Messages, params: Mapping[str, Any]) -> list[int]:
        num_chars = sum(len(text_of(message)) + _CHARS_OF_A_MESSAGE for message in messages)
        short = num_chars <= self._limits.inline_prompt_chars
        if short and not params.get("tools") and not params.get("chat_template_kwargs"):
            return model.prompt_of(messages, params)
        return await asyncio.to_thread(model.prompt_of, messages, params)

    async def _model(self, card: ExpertCard) -> LoadedModel:
        key = (card.model, card.adapter_of)
        if (model := self._models.get(key)) is None:
            async with self._loading:  # one at a time: loading is short, and imports do not like company
                if (model := self._models.get(key)) is None:
                    model = await asyncio.to_thread(_load, card, self._embedded_dir, self._limits)
                    self._models[key] = model
        self._models.move_to_end(key)
        while len(self._models) > self._limits.max_models:
            self._models.popitem(last=False)  # calls that still use it keep it alive
        return model


def _load(card: ExpertCard, embedded_dir: Path, limits: EmbeddedLimits) -> LoadedModel:
    return load_model(find_folder(card, embedded_dir), limits)


def _writers(sequences: list[Sequence]) -> list[ChoiceWriter]:
    return [ChoiceWriter(s.index, s.generation, s.model.vocabulary) for s in sequences]
