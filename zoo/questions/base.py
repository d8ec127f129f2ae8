"""What every question generator shares: the question itself, the splits and the phrasing of a request.

A generator is a function ``(Random, Split) -> Question``. It draws operands until their bucket belongs to the split
that was asked for, so that training never sees an operand that a held-out question uses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, Protocol, TypeVar

Split = Literal["train", "validation", "test"]
T = TypeVar("T")

_NUM_BUCKETS = 12
"""One twelfth of all operands is kept for the test set, one for validation, the rest is for training."""

OPENERS = (
    "Please tell me: ",
    "Quick question: ",
    "Hi! ",
    "Tell me, ",
    "I wonder: ",
    "Help me out. ",
    "Hello, ",
    "One more: ",
    "Question: ",
    "Could you say: ",
)
CLOSERS = (" Thanks!", " Please.", " Answer briefly.", " Just the answer.", " I need it now.")


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its exact answer.

    ``think`` is the scratch work that leads to the answer (empty when none is needed); ``history`` are earlier turns
    ``(user, assistant)``; ``tricky`` says that the wording points at another domain than the one that answers.
    """

    text: str
    answer: str
    domain: str
    skill: str
    think: str = ""
    history: tuple[tuple[str, str], ...] = ()
    tricky: bool = False

    @property
    def completion(self) -> str:
        """What an expert should write: reasoning inside ``<think>`` first, then the answer."""
        return f"<think>{self.think}</think>{self.answer}" if self.think else self.answer


class Generator(Protocol):
    """Draws one question of a domain; with *tricky* one whose wording misleads."""

    def __call__(self, rng: Random, split: Split, *, tricky: bool = False) -> Question: ...


def split_of(*keys: str) -> Split:
    """The split that the operands named by *keys* belong to; the same on every machine.

    Operands that go by several names, such as a sum and the same sum the other way round, are held out only when no name
    of theirs is trained; then the first decides.
    """
    buckets = [int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big") % _NUM_BUCKETS for key in keys]
    if any(bucket > 1 for bucket in buckets):
        return "train"
    return "test" if buckets[0] == 0 else "validation"


def draw(split: Split, make: Callable[[], tuple[str | tuple[str, ...], T]], *, max_tries: int = 10_000) -> T:
    """Draw from *make*, which gives ``(key or keys of the operands, operands)``, until they fall into *split*."""
    for _ in range(max_tries):
        names, operands = make()
        if split_of(*((names,) if isinstance(names, str) else names)) == split:
            return operands
    raise LookupError(f"no operands of split {split!r} in {max_tries} draws: the operand space is too small")


def choose_phrasing(rng: Random, split: Split, phrasings: Sequence[str], *, num_held_out: int) -> str:
    """A phrasing of *split* where phrasings are what is held out, because all operands must be trained: facts, two truth values.

    The last *num_held_out* phrasings belong to the test set, as many before them to validation.
    """
    test, validation = phrasings[-num_held_out:], phrasings[-2 * num_held_out : -num_held_out]
    train = phrasings[: -2 * num_held_out]
    return rng.choice({"train": train, "validation": validation, "test": test}[split])


def dress(rng: Random, text: str, *, probability: float = 0.3) -> str:
    """The same request as people send it: now and then with a greeting, a courtesy, or sloppy case and punctuation."""
    if rng.random() < probability:
        text = rng.choice(OPENERS) + text
    if rng.random() < probability / 3:
        text += rng.choice(CLOSERS)
    if rng.random() < probability / 4 and text.endswith(("?", ".")):
        text = text[:-1]
    return text
