"""Which text of a conversation is routed. Pure.

The last user turn decides when it can be understood alone; a fragment ("and doubled?", "why?") is read together with what it
follows, back to the nearest turn that is no fragment itself. Similarities to known skills say which reading counts: one of
them, never a blend, for half of one topic and half of another would look like a task for a generalist.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain.chat import Message, text_of, user_turns

_BRIEF_WORDS = 3
"""Up to here a turn may be a fragment whatever it resembles: "why?", "once more please"."""
_SHORT_WORDS = 5
_SHORT_WITH_OPENER_WORDS = 8
_MAX_CONTEXT_TURNS = 4
_CHARS_PER_WORD = 12
"""A "word" is never longer than this, whatever the script."""
_SCRIPTS_WITHOUT_SPACES = (
    (re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"), 2),  # kana and Han
    (re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"), 5),  # Thai, Lao, Burmese, Khmer
)
"""Characters, and how many of them make a word."""
_OPENER = re.compile(r"(and|or|but|also|then|so|now|again|same|instead|next|what about|how about|what if)\b", re.IGNORECASE)
"""How English fragments begin. Other languages get along without: their fragments are recognised by similarity alone."""

# Similarities of a turn alone to its best skill, chosen with benchmarks/routing_quality.py (docs/adr/0004-routing.md).
_CLEAR_WITH_OPENER = 0.65
_CLEAR_SHORT = 0.42
_CLEAR = 0.365
_FAINT = 0.30
"""Without an opener, a longer turn that has less in common with any skill is a new, unknown topic and no fragment."""
_KEPT = 0.86
"""Share of the context's similarity that is left when a fragment is read after it. "why?" takes nothing away from "What is
21 + 13?"; "Best pasta recipe?" takes a third, and is a new topic."""
_KEPT_EARLIER = 0.9
"""The same for turns before the last one, of which one in doubt ends the context: what it names is enough to follow."""


@dataclass(frozen=True, slots=True)
class RoutedText:
    """``last`` is the last turn; ``earlier`` the turns that it may refer to, the latest of them first."""

    last: str
    earlier: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """What to encode first, in one batch: ``last``, the same after the turn before it, and that turn."""
        return (self.last, self.after(1), self.earlier[0]) if self.earlier else (self.last,)

    def context(self, num_turns: int) -> str:
        """The latest *num_turns* of the earlier turns, in their order."""
        return "\n".join(reversed(self.earlier[:num_turns]))

    def after(self, num_turns: int) -> str:
        """The last turn as it is read after *num_turns* others."""
        return "\n".join((*reversed(self.earlier[:num_turns]), self.last))


def is_fragment(turn: str, similarity: float) -> bool:
    """Whether *turn*, which alone is similar so much to its best skill, may lean on what came before."""
    num = num_words(turn)
    if _has_opener(turn, num):
        return similarity < _CLEAR_WITH_OPENER
    if num <= _BRIEF_WORDS:
        return similarity < _CLEAR_SHORT
    return _FAINT <= similarity < (_CLEAR_SHORT if num <= _SHORT_WORDS else _CLEAR)


def follows(turn: str, context: float, together: float, *, is_last: bool = True) -> bool:
    """Whether the fragment *turn* continues its context and does not change the topic, by how similar the context and both
    *together* are to their best skill."""
    return _has_opener(turn, num_words(turn)) or together >= (_KEPT if is_last else _KEPT_EARLIER) * context


def routed_text(messages: Sequence[Message]) -> RoutedText:
    """The text to route. A last turn without text (an image) is left to the turns before it; without any user turn it is the
    last message that has text, or empty."""
    turns = user_turns(messages)
    if not turns:
        texts = [text for message in messages if (text := text_of(message).strip())]
        return RoutedText(texts[-1] if texts else "")
    return RoutedText(turns[-1], tuple(reversed(turns[:-1][-_MAX_CONTEXT_TURNS:])))


def more_than_text(messages: Sequence[Message]) -> bool:
    """Whether a user message holds something besides text: an image, audio."""
    contents = [message.get("content") for message in messages if message.get("role") == "user"]
    parts = [part for content in contents if isinstance(content, list | tuple) for part in content]
    return any(isinstance(part, Mapping) and part.get("type") != "text" for part in parts)


def num_words(text: str) -> int:
    """How many words *text* has; estimated from its characters where none are between spaces."""
    without_spaces = (math.ceil(len(script.findall(text)) / size) for script, size in _SCRIPTS_WITHOUT_SPACES)
    return max(len(text.split()), len(text) // _CHARS_PER_WORD, *without_spaces)


def _has_opener(turn: str, num: int) -> bool:
    return num <= _SHORT_WITH_OPENER_WORDS and _OPENER.match(turn) is not None
