"""One sequence held to its grammar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workers.embedded.sampler import Logits

if TYPE_CHECKING:
    from workers.embedded.grammar import GrammarCompiler

_CLOSE_EVERY, _CLOSE_MARGIN = 4, 8
"""How often the way to the end is measured, in tokens, and how many are kept in hand meanwhile."""
_MAX_CLOSING = 512
"""Longest way to the end that is followed; longer schemas may be cut off by ``max_tokens``."""
_FREE_TEXT = 64
"""With at least this many choices the grammar is inside a string, where brackets are mere text."""


class Guide:
    """Holds one sequence to its grammar.

    Small models rarely find the end of a string by themselves. When what is left of the budget is just enough, the guide
    takes the shortest way to the end that it knows, so that an answer is whole wherever that is possible.
    """

    def __init__(self, compiler: GrammarCompiler, compiled: Any, budget: int) -> None:
        import xgrammar

        self._compiler = compiler
        self._matcher = xgrammar.GrammarMatcher(compiled)
        self._bitmask = xgrammar.allocate_token_bitmask(1, compiler.vocab_size)
        self._budget = budget
        self._num_tokens = 0
        self._closing = False
        self._allowed = self._next(self._matcher)

    @property
    def finished(self) -> bool:
        """Whether the answer is whole and nothing may follow."""
        return self._matcher.is_terminated() or (self._matcher.is_completed() and set(self._allowed[:8].tolist()) <= self._compiler.end_ids)

    def restrict(self, logits: Logits) -> None:
        """Rule out every token that the grammar does not allow now."""
        allowed = self._allowed
        # A model that would end here has said what it had to say: that ends the value that is open, and so the answer.
        self._closing = self._closing or int(logits.argmax()) in self._compiler.end_ids
        if self._must_close():
            allowed = np.array([self._closing_token(self._matcher, allowed)], dtype=np.int64)
        kept = logits[allowed]
        logits[:] = -np.inf
        logits[allowed] = kept

    def accept(self, token: int) -> None:
        """*token* was chosen."""
        self._matcher.accept_token(token)
        self._num_tokens += 1
        if not self._matcher.is_terminated():
            self._allowed = self._next(self._matcher)

    def _next(self, matcher: Any) -> NDArray[np.int64]:
        """The ids that may come next, ascending."""
        matcher.fill_next_token_bitmask(self._bitmask)
        bits = np.unpackbits(self._bitmask.numpy().view(np.uint8), bitorder="little")[: self._compiler.vocab_size]
        bits[self._compiler.forbidden] = 0
        return np.flatnonzero(bits)

    def _must_close(self) -> bool:
        if not self._closing and self._num_tokens % _CLOSE_EVERY == 0:
            self._closing = self._budget - self._num_tokens <= self._way_to_end() + _CLOSE_MARGIN
        return self._closing

    def _way_to_end(self) -> int:
        """How many tokens the shortest known end takes."""
        matcher, allowed, length = self._matcher.fork(), self._allowed, 0
        while length < min(_MAX_CLOSING, self._budget):
            token = self._closing_token(matcher, allowed)
            if token in self._compiler.end_ids:
                break
            matcher.accept_token(token)
            allowed = self._next(matcher)
            length += 1
        return length

    def _closing_token(self, matcher: Any, allowed: NDArray[np.int64]) -> int:
        options = set(allowed.tolist())
        if matcher.is_completed() and (ends := options & self._compiler.end_ids):
            return int(min(ends))
        order = self._compiler.closers[-1:] if len(options) >= _FREE_TEXT else self._compiler.closers
        return next((closer for closer in order if closer in options), int(allowed[0]))
