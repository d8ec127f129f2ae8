"""Many questions put to one way of answering, within bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from domain.chat import Message
from domain.errors import ExpertError
from domain.outcomes import NOT_MEASURED
from domain.skills import LabelledQuestion
from evaluation.answers.replies import Reply, ReplyLog
from evaluation.array_cache import content_key
from evaluation.graders import Grader
from evaluation.labelled import messages_of

MAX_FAILURES_IN_A_ROW = 20
"""So many, and a way is given up: the service or the expert is down, and asking on would only cost time."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for one answer."""

    model: str
    messages: tuple[Message, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    """OpenAI fields."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The body object ``consilium``."""


class Asker(Protocol):
    """Who gets answers."""

    async def ask(self, ask: Ask) -> Reply:
        """The answer; one with ``error`` when there is none. Raises only when asking on is pointless."""
        ...


@dataclass(frozen=True, slots=True)
class Way:
    """One way to answer: a model name with options, as it is now."""

    name: str
    model: str
    version: str
    """Changes with whatever makes it answer differently: an expert's card, a strategy and all that it may choose from."""
    params: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and what was answered."""

    reply: Reply
    correct: bool | None
    """None where a judge had to decide and gave no verdict."""

    @property
    def score(self) -> float:
        """1 for a right answer, 0 for a wrong one or none, NaN where nobody knows."""
        return NOT_MEASURED if self.correct is None else float(self.correct)


@dataclass(slots=True)
class Questioner:
    """Asks, grades and remembers. At most *concurrency* questions are under way."""

    asker: Asker
    log: ReplyLog
    grader: Grader
    concurrency: int = 16
    progress: Callable[[str, int, int], None] = lambda *_: None

    async def ask_all(
        self,
        way: Way,
        questions: Sequence[LabelledQuestion],
        *,
        seed: int | None = None,
        messages: Sequence[tuple[Message, ...]] | None = None,
    ) -> list[Asked]:
        """One answer per question, in their order. *seed* makes samples of one way differ; *messages* replace what is sent.

        Answers that are known are not asked for again. A way that fails ``MAX_FAILURES_IN_A_ROW`` times is asked no more, and its
        open questions fail with that reason.
        """
        sent = [messages_of(question) for question in questions] if messages is None else list(messages)
        found: list[Asked | None] = [None] * len(questions)
        waiting, num_done, failures = iter(range(len(questions))), 0, Failures()
        self.progress(way.name, 0, len(questions))

        async def lane() -> None:
            nonlocal num_done
            for number in waiting:
                reply, _ = await remembered(self.asker, self.log, way, sent[number], seed=seed, failures=failures)
                found[number] = Asked(reply, await self.graded(questions[number], reply))
                num_done += 1
                self.progress(way.name, num_done, len(questions))

        lanes = [asyncio.ensure_future(lane()) for _ in range(max(1, min(self.concurrency, len(questions))))]
        try:
            await asyncio.gather(*lanes)
        finally:
            for one in lanes:
                one.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        return [asked for asked in found if asked is not None]

    async def graded(self, question: LabelledQuestion, reply: Reply) -> bool | None:
        """Whether *reply* is right; None where the judge gave no verdict."""
        if reply.error is not None:
            return False
        try:
            return await self.grader.grade(question, reply.text)
        except ExpertError:  # the judge's; it counts them itself
            return None


@dataclass(slots=True)
class Failures:
    """How often in a row asking has failed. Mutable; shared by all that ask the same way."""

    num_in_a_row: int = 0
    given_up: str | None = None

    def note(self, error: str | None) -> None:
        self.num_in_a_row = 0 if error is None else self.num_in_a_row + 1
        if error is not None and self.num_in_a_row >= MAX_FAILURES_IN_A_ROW:
            self.given_up = f"given up after {self.num_in_a_row} failures in a row, the last: {error}"


async def remembered(
    asker: Asker, log: ReplyLog, way: Way, messages: Sequence[Message], *, seed: int | None = None, failures: Failures
) -> tuple[Reply, bool]:
    """The reply to *messages*, from the *log* where it is known, and whether somebody was asked for it now."""
    params = dict(way.params) if seed is None else {**way.params, "seed": seed}
    shape = json.dumps([[dict(m) for m in messages], params, dict(way.options)], sort_keys=True, ensure_ascii=False, default=str)
    key = content_key("answer", way.model, way.version, shape)
    known = log.get(key)
    if known is not None:
        return known, False
    if failures.given_up is not None:
        return Reply(error=failures.given_up), False
    reply = await asker.ask(Ask(way.model, tuple(messages), params, way.options))
    failures.note(reply.error)
    log.put(key, reply)
    return reply, True
