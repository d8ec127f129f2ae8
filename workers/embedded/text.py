"""From tokens to text: whole characters, reasoning apart, up to the stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel, DecodeStream

from workers.embedded.sampler import TokenLogprobs
from workers.reasoning import ReasoningSplitter, Split, num_held_back


class Vocabulary:
    """What every token says, in bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._added = {token: added.content for token, added in tokenizer.get_added_tokens_decoder().items()}
        self._silent = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
        self.byte_level = isinstance(tokenizer.decoder, ByteLevel)
        self._bytes = _byte_letters()

    def is_silent(self, token: int) -> bool:
        """Whether it is a mark of the chat template, which no reader should see."""
        return token in self._silent

    def bytes_of(self, token: int) -> bytes:
        """The bytes of *token*, marks included."""
        if (content := self._added.get(token)) is not None:
            return str(content).encode()
        text = self.tokenizer.id_to_token(token) or ""
        if self.byte_level:
            return bytes(self._bytes[letter] for letter in text if letter in self._bytes)
        return str(self.tokenizer.decode([token], skip_special_tokens=False)).encode()


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for the 256 bytes: printable ones stand for themselves, the rest for what follows 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}


class _Detokenizer(Protocol):
    def feed(self, token: int) -> str: ...


class _ByteLevelText:
    """Bytes of tokens joined and decoded; a character that is not whole yet waits."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        return "" if self._vocabulary.is_silent(token) else self._decoder.decode(self._vocabulary.bytes_of(token))


class _StreamedText:
    """Any other tokenizer, by its own decoder."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokenizer = vocabulary.tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)

    def feed(self, token: int) -> str:
        return self._stream.step(self._tokenizer, token) or ""


class _StopFinder:
    """Passes text on up to the first stop string; holds back what may be the beginning of one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        if not self._stop:
            return text
        text = self._held + text
        hits = [at for mark in self._stop if (at := text.find(mark)) >= 0]
        if hits:
            self._held, self.found = "", True
            return text[: min(hits)]
        kept = max(num_held_back(text, mark) for mark in self._stop)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def finish(self) -> str:
        rest, self._held = self._held, ""
        return rest


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of one choice."""

    content: str = ""
    reasoning: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning)

    def __add__(self, other: Piece) -> Piece:
        return Piece(self.content + other.content, self.reasoning + other.reasoning, self.logprobs + other.logprobs)


class TextAssembler:
    """The text of one sequence. Stop strings end the answer; reasoning before it may contain them."""

    def __init__(self, vocabulary: Vocabulary, stop: Sequence[str], *, reasoning: bool) -> None:
        self._text: _Detokenizer = _ByteLevelText(vocabulary) if vocabulary.byte_level else _StreamedText(vocabulary)
        self._splitter = ReasoningSplitter() if reasoning else None
        self._stop = _StopFinder(stop)
        self._logprobs: list[TokenLogprobs] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found; nothing may be fed any more."""
        return self._stop.found

    def feed(self, token: int, logprobs: TokenLogprobs | None) -> Piece:
        """What *token* makes certain."""
        text = self._text.feed(token)
        thinking = self._splitter is not None and self._splitter.in_reasoning
        split = self._splitter.feed(text) if self._splitter else Split(content=text)
        if logprobs is not None and not thinking and not (self._splitter and self._splitter.in_reasoning):
            self._logprobs.append(logprobs)
        return self._piece(split.reasoning, self._stop.feed(split.content))

    def finish(self) -> Piece:
        """What was held back."""
        if self.stopped:
            return Piece()
        split = self._splitter.finish() if self._splitter else Split()
        content = self._stop.feed(split.content)
        return self._piece(split.reasoning, content if self.stopped else content + self._stop.finish())

    def _piece(self, reasoning: str, content: str) -> Piece:
        logprobs: tuple[TokenLogprobs, ...] = ()
        if content:
            logprobs, self._logprobs = tuple(self._logprobs), []
        return Piece(content, reasoning, logprobs)


def logprobs_json(logprobs: Sequence[TokenLogprobs], vocabulary: Vocabulary) -> dict[str, Any]:
    """OpenAI's ``logprobs`` object."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        raw = vocabulary.bytes_of(token)
        return {"token": raw.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(raw)}

    return {
        "content": [
            {**entry(chosen.token_id, chosen.logprob), "top_logprobs": [entry(token, logprob) for token, logprob in chosen.top]}
            for chosen in logprobs
        ],
        "refusal": None,
    }
