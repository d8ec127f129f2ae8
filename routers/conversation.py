"""Which text of a conversation is routed. Pure.

The last user turn decides when it can be understood alone; a turn that cannot ("and doubled?") is read together with what
it follows. Both readings are encoded in one batch and blended by how clear the turn is on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domain.chat import Message, text_of, user_turns

_SHORT_WORDS = 5
"""Up to this length a turn may be a fragment even when it resembles something by itself."""
_MAX_CONTEXT_TURNS = 4
_CHARS_PER_WORD = 12
"""For scripts without spaces: a "word" is never longer than this."""

# Own similarity from which a turn counts a little, and fully. Measured (docs/adr/0004-routing.md): 98 % of follow-ups stay
# with their topic, 98.6 % of new questions after another topic leave it.
_FAINT = 0.35
_CLEAR_SHORT = 0.55
_CLEAR = 0.38
_MIN_OWN = 0.25
"""Below this a turn has nothing in common with any known skill, and what came before does not make it a follow-up."""


@dataclass(frozen=True, slots=True)
class RoutedText:
    """``last`` is the last turn; ``with_context`` the same after the turns that it may refer to, if there are any."""

    last: str
    with_context: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """What to encode, in one batch."""
        return (self.last,) if self.with_context is None else (self.last, self.with_context)

    def own_share(self, similarity: float) -> float:
        """How far the last turn stands on its own, in [0, 1], when alone it is *similar* so much to its best skill.

        1 means that the context does not count, 0 that only the reading with context does.
        """
        if self.with_context is None or similarity < _MIN_OWN:
            return 1.0
        clear = _CLEAR_SHORT if num_words(self.last) <= _SHORT_WORDS else _CLEAR
        return min(1.0, max(0.0, (similarity - _FAINT) / (clear - _FAINT)))


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


def num_words(text: str) -> int:
    return max(len(text.split()), len(text) // _CHARS_PER_WORD)
