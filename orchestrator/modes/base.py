"""What a mode yields, and what it ends with.

A mode is a generator: it yields ``Ask``, ``Write`` or ``NextExpert``, is sent what came of it, and returns ``Told`` or ``Nobody``. It
makes no call, reads no clock and draws nothing at random but from the request's seed, so the same outcomes always lead to the same
steps: what was kept of a mode that broke off can be played again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

from domain.chat import Message
from domain.experts import ExpertCard
from domain.made_often import made_often
from domain.plan import Candidate, ExpertCall, ExpertFailure


@dataclass(frozen=True, slots=True)
class Noted:
    """What became of one stage, for the trace."""

    stage: int
    note: str
    confidence: float | None = None


@made_often
@dataclass(frozen=True, slots=True)
class Told:
    """The answer, and how it was made."""

    answer: Candidate
    by: str
    """As the trace has it: ``single``, ``vote``, ``fuse:<expert>``, ``chain:<expert>``; with `` (fallback)`` behind where the last
    call came to nothing."""
    why: str
    notes: tuple[Noted, ...] = ()
    changed: bool | None = None
    """Of several candidates: whether the answer says something else than the best-scored one's."""
    is_own: bool = True
    """Whether it is what its expert answered to the question itself; False where it was written from what others had said, so that it
    says nothing of one expert alone."""


@dataclass(frozen=True, slots=True)
class Nobody:
    """Every expert has failed."""

    failures: tuple[ExpertFailure, ...]
    notes: tuple[Noted, ...] = ()


SoFar = Callable[[str], Told]
"""The answer if it has to be told now, given why: "there was no time left", "the budget of 300 tokens leaves no room"."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Calls that run at once. The mode is sent a list of outcomes, one for each call, in their order."""

    calls: tuple[ExpertCall, ...]
    stage: int | None = None
    """Which step of the mode it is, from 1, for the trace; None where the mode has one only."""
    wait: str = "experts"
    """The stage of the trace's timings that the wait counts for: ``experts`` or ``aggregate``."""
    so_far: SoFar | None = None
    """None: there is no answer yet."""
    num_to_come: int = 0
    """Calls that have to be possible afterwards: retries leave room for them."""
    quorum: int | None = None
    """So many answers are enough: who has not answered by then is given up."""
    quorum_of: int | None = None
    """So many calls, from the first, count towards it; None: all."""
    positions: tuple[int, ...] | None = None
    """Places of the calls among all of the mode's; None: those behind the last ones."""


@dataclass(frozen=True, slots=True)
class Write:
    """One call whose words are the answer, told as they come. The mode is sent a list with its outcome. Of a mode that makes no other
    call it may be hedged (``orchestrator.hedging``): where both calls fail, the list has both failures."""

    call: ExpertCall
    by: str | None = None
    """What ``Told.by`` will be, as far as it is known."""
    why: str = ""
    stage: int | None = None
    wait: str = "aggregate"
    so_far: SoFar | None = None
    holds_back: bool = True
    """An end without a word is not told before the mode has been asked who answers instead."""
    positions: tuple[int, ...] | None = None
    num_to_come = 0
    quorum = None
    quorum_of = None

    @property
    def calls(self) -> tuple[ExpertCall, ...]:
        return (self.call,)


@dataclass(frozen=True, slots=True)
class NextExpert:
    """Who is best for *messages* among the eligible that are not in *without*? The mode is sent a card, or None when nobody is left."""

    messages: tuple[Message, ...]
    without: frozenset[str]


Step = Ask | Write | NextExpert
End = Told | Nobody
Steps = Generator[Step, Any, End]


class Mode(Protocol):
    """One request's mode, with everything that it needs to know. Immutable: ``steps`` can be begun again."""

    @property
    def announced(self) -> str:
        """How the answer will be made if no expert fails; for headers, which go out before the answer does."""
        ...

    @property
    def num_calls(self) -> int:
        """Calls at most, as far as nothing is tried again."""
        ...

    @property
    def is_alone(self) -> bool:
        """Whether it is the one call of one expert."""
        ...

    @property
    def is_known_ahead(self) -> bool:
        """Whether all its calls are known before the first has ended: candidates, and one that reads them."""
        ...

    @property
    def others(self) -> tuple[str, ...]:
        """Ids of experts that it may call beside the selected ones and the reader, in its order."""
        ...

    @property
    def reader(self) -> ExpertCard | None:
        """The expert that reads what the others have said, as far as one will."""
        ...

    def steps(self) -> Steps: ...
