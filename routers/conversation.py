"""Which text of a conversation is routed. Pure.

The last user turn decides when it can be understood alone; a fragment ("and doubled?") is read together with what it
follows. Both readings are encoded in one batch, and how much the turn alone resembles a known skill says which one counts.
One of them counts, never a blend: half of one topic and half of another would look like a task for a generalist.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain.chat import Message, text_of, user_turns

_SHORT_WORDS = 5
_SHORT_WITH_OPENER_WORDS = 8
_MAX_CONTEXT_TURNS = 4
_CHARS_PER_WORD = 12
"""For scripts without spaces: a "word" is never longer than this."""
_OPENER = re.compile(r"(and|or|but|also|then|so|now|again|same|instead|next|what about|how about|what if)\b", re.IGNORECASE)
"""How English fragments begin. Other languages get along without: their fragments are recognised by similarity alone."""

# Similarities of the turn alone to its best skill. Measured (docs/adr/0004-routing.md): 98 % of follow-ups stay with their
# topic, 97 % of new questions leave the topic before them, 90 % of texts that belong to no skill are refused there too.
_CLEAR_WITH_OPENER = 0.65
_CLEAR_SHORT = 0.42
_CLEAR = 0.365
_FAINT = 0.30
"""Without an opener, a turn that has less in common with any skill is a new, unknown topic and no fragment."""


@dataclass(frozen=True, slots=True)
class RoutedText:
    """``last`` is the last turn; ``with_context`` the same after the turns that it may refer to, if there are any."""

    last: str
    with_context: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """What to encode, in one batch."""
        return (self.last,) if self.with_context is None else (self.last, self.with_context)

    def is_fragment(self, similarity: float) -> bool:
        """Whether the last turn, which alone is *similar* so much to its best skill, leans on what came before."""
        length = num_words(self.last)
        if length <= _SHORT_WITH_OPENER_WORDS and _OPENER.match(self.last):
            return similarity < _CLEAR_WITH_OPENER
        return _FAINT <= similarity < (_CLEAR_SHORT if length <= _SHORT_WORDS else _CLEAR)


def routed_text(messages: Sequence[Message]) -> RoutedText:
    """The text to route. Without any user turn it is the last message that has text, or empty."""
    turns = user_turns(messages)
    if not turns:
        texts = [text for message in messages if (text := text_of(message).strip())]
        return RoutedText(texts[-1] if texts else "")
    context: list[str] = []
    # Back to the turn that names the topic: fragments ("and plus 7?") lean on what stands before them.
    for turn in reversed(turns[:-1][-_MAX_CONTEXT_TURNS:]):
        context.insert(0, turn)
        if num_words(turn) > _SHORT_WORDS:
            break
    return RoutedText(turns[-1], "\n".join([*context, turns[-1]]) if context else None)


def more_than_text(messages: Sequence[Message]) -> bool:
    """Whether a user message holds something besides text: an image, audio."""
    contents = [message.get("content") for message in messages if message.get("role") == "user"]
    parts = [part for content in contents if isinstance(content, list | tuple) for part in content]
    return any(isinstance(part, Mapping) and part.get("type") != "text" for part in parts)


def num_words(text: str) -> int:
    return max(len(text.split()), len(text) // _CHARS_PER_WORD)
