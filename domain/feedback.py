"""What users said about answers, and what follows from it about experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Feedback:
    """One thing that was said about one request. Events in a log: what is learnt is what the log adds up to."""

    id: str
    request_id: str
    trace_id: str
    created_at: float
    """Seconds since the epoch."""
    given: Mapping[str, Any]
    """As it was said, without the ids."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """What that says of experts: id to score in [0, 1]."""
    expected: Mapping[str, float] = field(default_factory=dict)
    """The scores that these experts had when the request was routed."""
    answered_by: str | None = None
    strategy: str | None = None
    router: str | None = None
    skills: Sequence[tuple[str, float]] = ()
    """What the query needed, with weights that sum to 1."""
    category: str | None = None
    resets: str | None = None
    """Forgets what was said before of this expert; such an event has no scores."""
    vector: bytes | None = field(default=None, repr=False)
    """(D) float16: the text as it was routed; None where it was not kept."""
    encoder_id: str | None = None
    sequence: int = 0
    """Its place in the log, from 1; given by the log."""
    rolled_back_at: float | None = None
    """When it was taken back; then it counts for nothing."""

    @property
    def counts(self) -> bool:
        return self.rolled_back_at is None


@dataclass(frozen=True, slots=True)
class Tally:
    """Answers and how right they were. Not whole: a query may need several skills, and a score may lie between right and wrong."""

    num_answered: float = 0.0
    num_correct: float = 0.0

    def plus(self, score: float, weight: float = 1.0) -> Tally:
        return Tally(self.num_answered + weight, self.num_correct + weight * score)

    @property
    def accuracy(self) -> float | None:
        return self.num_correct / self.num_answered if self.num_answered else None


@dataclass(frozen=True, slots=True)
class ExpertFeedback:
    """What feedback says of one expert. Kept apart from what was measured (``domain.skills.SkillProfile``)."""

    expert_id: str
    overall: Tally = Tally()
    by_skill: Mapping[str, Tally] = field(default_factory=dict)
    by_category: Mapping[str, Tally] = field(default_factory=dict)
    num_feedback: int = 0
    """All that was said of it, whether or not it was learnt."""
    accuracy: float | None = None
    """Prequential, over the last answers: each was compared with what was expected before it was learnt."""
    surprise: float | None = None
    """Mean squared difference between the scores it was routed with and what was said (Brier), over the same answers."""
    window: int = 0
    """How many answers these are."""
    drifted: bool = False
    """It answers worse than it used to, so what was measured before says little."""
    usual: float | None = None
    """Its accuracy before that, by feedback; None where it has not drifted."""
    drifted_at: float | None = None
    """Seconds since the epoch; of the last alarm, also when it has recovered since."""
    num_alarms: int = 0
    frozen: bool = False
    """Its figures have settled: what is said is compared, and not learnt, until an alarm."""


@dataclass(frozen=True, slots=True)
class FeedbackView:
    """Everything that feedback says, at one moment. Immutable; a router reads one a query."""

    version: int = 0
    experts: Mapping[str, ExpertFeedback] = field(default_factory=dict)

    @property
    def drifted(self) -> frozenset[str]:
        return frozenset(expert_id for expert_id, found in self.experts.items() if found.drifted)
