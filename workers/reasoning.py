"""Reasoning text apart from the answer: ``<think>…</think>`` at the start of what a model says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from domain.chat import Choice, ChoiceDelta, Chunk, Message

OPENING, CLOSING = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Split:
    """Two parts of some text; either may be empty."""

    reasoning: str = ""
    content: str = ""

    def __add__(self, other: Split) -> Split:
        return Split(self.reasoning + other.reasoning, self.content + other.content)


class _State(Enum):
    START = "start"
    """Nothing but white space, or the beginning of an opening tag, was seen."""
    REASONING = "reasoning"
    """Inside the tags."""
    GAP = "gap"
    """The white space between closing tag and answer, which belongs to neither."""
    CONTENT = "content"
    """The answer itself; no tag means anything any more."""
    UNTAGGED = "untagged"
    """Text that did not open with a tag. A closing tag may still come: some chat templates write the opening one themselves."""


class ReasoningSplitter:
    """Splits text that arrives in pieces; a tag may be cut anywhere.

    Only an opening tag at the very start counts, so an answer may speak of ``<think>``. A missing closing tag makes all of
    it reasoning. When the opening tag is missing, what stood before the closing one has gone out as content already: the tag
    is dropped, and no more can be done in a stream; ``split_text`` sees the whole and puts it right.
    """

    def __init__(self) -> None:
        self._state = _State.START
        self._held = ""

    @property
    def in_reasoning(self) -> bool:
        return self._state is _State.REASONING

    def lets_through(self, text: str) -> bool:
        """Whether *text* is content as it is, with nothing held back before or after it."""
        return not self._held and (self._state is _State.CONTENT or (self._state is _State.UNTAGGED and "<" not in text))

    def feed(self, text: str) -> Split:
        """What is certain after *text*."""
        self._held += text
        done = Split()
        while self._held:
            state = self._state
            done += self._advance()
            if self._state is state:
                break
        return done

    def finish(self) -> Split:
        """What was held back for a tag that never came."""
        rest, self._held = self._held, ""
        return Split(reasoning=rest) if self._state is _State.REASONING else Split(content=rest)

    def _advance(self) -> Split:
        held = self._held
        match self._state:
            case _State.START:
                text = held.lstrip()
                if text.startswith(OPENING):
                    self._held, self._state = text[len(OPENING) :], _State.REASONING
                elif not OPENING.startswith(text):
                    self._state = _State.UNTAGGED
                return Split()
            case _State.REASONING:
                before, tag, self._held = self._until_closing()
                if tag:
                    self._state = _State.GAP
                return Split(reasoning=before)
            case _State.GAP:
                self._held = held.lstrip()
                if self._held:
                    self._state = _State.CONTENT
                return Split()
            case _State.UNTAGGED:
                if OPENING in held.partition(CLOSING)[0]:
                    self._state = _State.CONTENT  # it speaks about tags
                    return Split()
                before, tag, self._held = self._until_closing()
                if tag:
                    self._state = _State.GAP
                return Split(content=before)
            case _State.CONTENT:
                self._held = ""
                return Split(content=held)

    def _until_closing(self) -> tuple[str, bool, str]:
        """``(text before the tag, whether the tag is there, what stays held)``."""
        before, tag, after = self._held.partition(CLOSING)
        if tag:
            return before, True, after
        kept = max(num_held_back(before, CLOSING), num_held_back(before, OPENING))
        return before[: len(before) - kept], False, before[len(before) - kept :]


def num_held_back(text: str, mark: str) -> int:
    """How many characters at the end of *text* may be the beginning of *mark*."""
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0


def split_text(text: str) -> Split:
    """*text* as a whole, with a missing opening tag put right."""
    if OPENING not in text and CLOSING in text:
        reasoning, _, content = text.partition(CLOSING)
        return Split(reasoning, content.lstrip())
    splitter = ReasoningSplitter()
    return splitter.feed(text) + splitter.finish()


def _own_reasoning(message: Mapping[str, Any]) -> str | None:
    """Reasoning that the server itself keeps apart, under either of the two names in use."""
    for name in ("reasoning_content", "reasoning"):
        if isinstance(text := message.get(name), str) and text:
            return text
    return None


def split_choice(choice: Choice) -> Choice:
    """*choice* with its reasoning under ``reasoning_content`` and out of ``content``."""
    message = choice.message
    if (own := _own_reasoning(message)) is not None:
        return replace(choice, message={**message, "reasoning_content": own})
    content = message.get("content")
    if not isinstance(content, str) or (CLOSING not in content and not content.lstrip().startswith(OPENING)):
        return choice
    split = split_text(content)
    changed: Message = {**message, "content": split.content}
    if split.reasoning:
        changed = {**changed, "reasoning_content": split.reasoning}
    return replace(choice, message=changed)


class _ChoiceStream:
    """The state of one choice of a stream."""

    def __init__(self) -> None:
        self._splitter = ReasoningSplitter()

    def split(self, piece: ChoiceDelta) -> ChoiceDelta:
        if (own := _own_reasoning(piece.delta)) is not None:
            return replace(piece, delta={**piece.delta, "reasoning_content": own})
        content = piece.delta.get("content")
        if not isinstance(content, str):
            content = ""
        if self._splitter.lets_through(content):  # nearly every piece
            return piece
        delta = dict(piece.delta)
        split = self._splitter.feed(content)
        if piece.finish_reason is not None:
            split += self._splitter.finish()
        if content:
            del delta["content"]
        if split.content:
            delta["content"] = split.content
        if split.reasoning:
            delta["reasoning_content"] = split.reasoning
        return replace(piece, delta=delta)

    def finish(self) -> Message | None:
        """What a choice that never said its finish reason still held back."""
        rest = self._splitter.finish()
        if rest.reasoning:
            return {"reasoning_content": rest.reasoning}
        return {"content": rest.content} if rest.content else None


async def split_stream(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
    """*chunks* with reasoning under ``reasoning_content``. Deltas that hold nothing yet are dropped. Closes *chunks*."""
    choices: dict[int, _ChoiceStream] = {}
    try:
        async for chunk in chunks:
            kept, is_same = [], True
            for piece in chunk.choices:
                if (choice := choices.get(piece.index)) is None:
                    choice = choices[piece.index] = _ChoiceStream()
                split = choice.split(piece)
                if split.delta or split.finish_reason is not None or split.logprobs is not None or split.extra:
                    kept.append(split)
                    is_same = is_same and split is piece
                else:
                    is_same = False
            if kept or chunk.usage is not None or not chunk.choices:
                yield chunk if is_same else replace(chunk, choices=tuple(kept))
        for index, choice in choices.items():
            if (rest := choice.finish()) is not None:
                yield Chunk((ChoiceDelta(rest, index),))
    finally:
        await chunks.aclose()
