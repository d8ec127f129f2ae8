"""What a measurement is made of: one graded answer to one labelled question, and the run it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class QuestionOutcome:
    """How one expert did on one labelled question."""

    expert_id: str
    question_id: str
    skills: tuple[str, ...] = ()
    """The question's skills when it was asked."""
    category: str | None = None
    correct: bool = False
    answer: str = ""
    """What the expert answered, without reasoning."""
    latency_ms: float = 0.0
    error: str | None = None
    """Why there is no answer. Such an outcome is kept but counts in no profile: a dead server says nothing about skill."""
    expert_fingerprint: str | None = None
    """Of the card as it was when the expert was asked (``ExpertCard.fingerprint``): one of an older card is kept, and counts again when
    that card comes back. None: the store writes that of the card it has."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What it counts for: its skills; where it names none, its category (as ``LabelledQuestion.labels``)."""
        return self.skills or ((self.category,) if self.category else ())


@dataclass(frozen=True, slots=True)
class AggregatorOutcome:
    """How one expert, as aggregator, did on one right and two wrong candidates for one labelled question."""

    expert_id: str
    question_id: str
    category: str | None = None
    correct: bool = False
    answer: str = ""
    error: str | None = None
    """Why there is no answer; such an outcome counts in no profile."""
    expert_fingerprint: str | None = None
    """Of the card as it was (``ExpertCard.aggregator_fingerprint``); one of an older card counts in no profile. None: the store writes
    that of the card it has."""


class RunState(StrEnum):
    """Where a profile run stands."""

    RUNNING = "running"
    """Outcomes are still coming, or the run was interrupted and can be resumed."""
    FINISHED = "finished"
    ROLLED_BACK = "rolled_back"
    """Taken back: its outcomes are kept to look at, but count no more."""


@dataclass(frozen=True, slots=True)
class ProfileRunRecord:
    """One profile run as stored."""

    id: str
    state: RunState
    created_at: float
    """Seconds since the epoch."""
    expert_ids: tuple[str, ...]
    question_ids: tuple[str, ...]
    note: str = ""
    finished_at: float | None = None
    """When it was finished or rolled back."""
    num_recorded: int = 0
    """Outcomes so far, those with an error included."""
    num_correct: int = 0

    @property
    def num_planned(self) -> int:
        """Outcomes that the run has when it is complete: one per expert and question."""
        return len(self.expert_ids) * len(self.question_ids)
