"""One answer in the making."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from domain.errors import ExpertError
from workers.embedded.guide import Guide
from workers.embedded.model import LoadedModel
from workers.embedded.params import Generation
from workers.embedded.sampler import Logits, Sampler, TokenLogprobs, logprobs_of
from workers.embedded.text import Piece, TextAssembler


@dataclass(frozen=True, slots=True)
class Progress:
    """What became of one choice since the last event. The last event has a finish reason or an error."""

    index: int
    piece: Piece = Piece()
    finish_reason: str | None = None
    num_tokens: int = 0
    """Tokens so far."""
    error: ExpertError | None = None

    @property
    def last(self) -> bool:
        return self.finish_reason is not None or self.error is not None


Events = asyncio.Queue[Progress]
"""Bounded by what puts into it: a sequence makes at most one event a token, and its tokens are limited."""


@dataclass(eq=False)
class Sequence:
    """Belongs to the engine's thread, except ``cancelled``, which anyone may set."""

    model: LoadedModel
    prompt: list[int]
    generation: Generation
    max_tokens: int
    index: int
    streaming: bool
    loop: asyncio.AbstractEventLoop
    events: Events
    guide: Guide | None = None
    cancelled: bool = False
    failed: bool = False
    finish_reason: str | None = None
    num_tokens: int = 0
    last_token: int = -1
    _held: Piece = Piece()
    _sampler: Sampler = field(init=False)
    _text: TextAssembler = field(init=False)

    def __post_init__(self) -> None:
        self._sampler = Sampler(self.generation.sampling, self.index)
        self._text = TextAssembler(self.model.vocabulary, self.generation.stop, reasoning=self.guide is None)
        self.plain = self.generation.sampling.plain and self.guide is None and self.generation.top_logprobs is None
        """Whether the likeliest token is all that is needed of the logits."""

    @property
    def position(self) -> int:
        """Where the last token stands, which the next step reads."""
        return len(self.prompt) + self.num_tokens - 1

    @property
    def done(self) -> bool:
        return self.finish_reason is not None or self.cancelled or self.failed

    def choose(self, logits: Logits) -> tuple[int, TokenLogprobs | None]:
        """The next token by *logits* (vocabulary,), which are changed, and its log probabilities if they are wanted."""
        num_top = self.generation.top_logprobs
        original = logits.copy() if num_top is not None else logits
        if self.guide is not None:
            self.guide.restrict(logits)
        token = self._sampler.choose(logits)
        return token, logprobs_of(original, token, num_top) if num_top is not None else None

    def fail(self, error: ExpertError) -> Progress:
        """End this sequence with *error*."""
        self.failed = True
        return Progress(self.index, error=error)

    def take(self, token: int, logprobs: TokenLogprobs | None) -> Progress | None:
        """Go on with *token*; what the reader is to be told, if anything."""
        self.num_tokens += 1
        self.last_token = token
        if token in self.model.end_ids and not self.generation.ignore_end:
            self.finish_reason = "stop"
        else:
            if self.guide is not None:
                self.guide.accept(token)
            self._held += self._text.feed(token, logprobs)
            if self._text.stopped or (self.guide is not None and self.guide.finished):
                self.finish_reason = "stop"
            elif self.num_tokens >= self.max_tokens:
                self.finish_reason = "length"
        if self.finish_reason is not None:
            self._held += self._text.finish()
        elif not self.streaming or not self._held:
            return None
        piece, self._held = self._held, Piece()
        return Progress(self.index, piece, self.finish_reason, self.num_tokens)
